"""What tests of whole training runs share."""

import pytest


@pytest.fixture(scope="module")
def no_reports_and_a_quick_start():
    """Reports, and a model's own first parameters, are other tests' matter."""
    from experiments.pages import report
    from tests.experiments import quick_start

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write", lambda folder: None)
        quick_start.patch(patch.setattr)
        yield
