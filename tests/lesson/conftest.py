"""A browser with the lesson's page in it, where there is Chromium."""

import runpy
import shutil
from pathlib import Path

import pytest

LESSON = Path(__file__).parents[2] / "docs" / "lesson"
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def build():
    """The functions of ``docs/lesson/build.py``."""
    return runpy.run_path(str(LESSON / "build.py"))


@pytest.fixture(scope="session")
def address(build, tmp_path_factory):
    """Where the page is."""
    file = tmp_path_factory.mktemp("lesson") / "lesson.html"
    build["main"](file)
    return file.as_uri()


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no Chromium here: none of {', '.join(NAMES)} is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """Open the page, as a person's settings and screen have it; it must not complain.

    With a clock that the test winds.
    """
    contexts, complaints = [], []

    def open_page(clock=False, **preferences):
        context = browser.new_context(**preferences)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(5_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "data:")) or complaints.append(request.url)
            ),
        )
        if clock:
            page.clock.install()
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(open_page):
    return open_page(viewport={"width": 1280, "height": 900})
