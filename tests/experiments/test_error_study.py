"""The error study: everyone computes the same, and who errs is seen."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import error_study
from experiments.error_study import DTYPES, SUMS, Settings

SETTINGS = Settings(channels=(8,), kernels=(3,), size=5, batch=2)


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: the study is of float32, with JAX's defaults."""


def test_everyone_is_near_the_reference_and_drawn(monkeypatch, tmp_path, capsys):
    def by_nobody(layer, x, w, dy):
        return {"y": jnp.zeros(layer.shapes("NHWC")["dy"], x.dtype)}

    everyone = error_study.contestants()
    assert {"auto", "equations", "patches", "xla", "lax"} <= set(everyone)
    everyone["nobody"] = by_nobody
    monkeypatch.setattr(error_study, "contestants", lambda: everyone)
    picture = tmp_path / "runs" / "errors.png"
    errors = error_study.main(replace(SETTINGS, output=picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "nobody" in capsys.readouterr().out
    for (dtype, _, name), found in errors.items():
        assert [terms for terms, _ in found] == [72]
        worst = max(error for _, error in found)
        if name == "nobody":
            assert worst == 1
        else:
            # 72 products in float32; a half is rounded once more, by half a unit of 2⁻⁸ of
            # the largest entry.
            assert 0 < worst < {"float32": 4e-7, "bfloat16": 0.5 * 2**-7}[dtype]
    for dtype in DTYPES:
        for result in SUMS.values():
            for name in ("auto", "equations", "lax"):
                assert (dtype, result, name) in errors


def test_torch_computes_the_same_layers():
    pytest.importorskip("torch")
    layer = next(error_study.layers(SETTINGS))
    rng = np.random.default_rng(0)
    shapes = layer.shapes("NHWC")
    arrays = [
        jnp.asarray(rng.standard_normal(shapes[name]), "float32")
        for name in ("x", "w", "dy")
    ]
    theirs, laxs = error_study.by_torch(*arrays), error_study.by_lax(*arrays)
    for result in SUMS.values():
        np.testing.assert_allclose(theirs[result], laxs[result], rtol=0, atol=1e-5)
