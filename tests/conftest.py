"""What every test runs under: types and shapes checked, strict JAX, fixed randomness.

The modules of :mod:`tests.modules` are imported through jaxtyping's hook, so that the types
and shapes written in their signatures are checked at every call of every test.
"""

import os
import sys
import types

import jax
import numpy as np
import pytest
from jaxtyping import install_import_hook

from tests.modules import CHECKED

jax.config.update("jax_num_cpu_devices", 8)  # for tests.platforms.test_sharding

if os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS") and jax.__version_info__ < (0, 11):
    # Compiling is most of the tests' time. Until jax 0.11 XLA has a second way of emitting
    # fused loops, which compiles four times as fast; newer ones refuse to be asked for it.
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
    )

if "jaxcnn" in sys.modules:
    raise RuntimeError("jaxcnn was imported before its types could be checked")
install_import_hook(CHECKED, "beartype.beartype")


STRICT = {
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
}


@pytest.fixture(autouse=True)
def strict_jax():
    """float64, and neither dtypes nor ranks that change by themselves.

    For the tests in this folder only: the doctests of the package show what a user sees,
    who has JAX's defaults. Set for all threads, since callbacks run in one of their own.
    """
    before = {name: getattr(jax.config, name) for name in STRICT}
    for name, value in STRICT.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """What a file's tests compiled is of no use to the next file's, and fills memory."""
    yield
    jax.clear_caches()


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers at every run, whichever tests run before."""
    return np.random.default_rng(2024)


@pytest.fixture
def opaque_engine(monkeypatch) -> str:
    """The equations, except that JAX takes whatever they compute for a constant."""
    # Only now: their types are checked from above on.
    from jaxcnn import equations, plan, problem

    def opaque(function):
        return lambda *operands, **known: jax.lax.stop_gradient(
            function(*operands, **known)
        )

    engine = {name: opaque(getattr(equations, name)) for name in problem.STATIC_ARGUMENTS}
    monkeypatch.setitem(plan.ENGINES, "opaque", types.SimpleNamespace(**engine))
    return "opaque"
