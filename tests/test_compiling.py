"""What makes programs on a CPU faster."""

import ctypes
import os
import subprocess
import sys

import jaxcnn

PAGES_OF_A_STEP = """
import resource, statistics, sys, jax, jax.numpy as jnp, jaxcnn
if sys.argv[1] == "keep":
    assert jaxcnn.keep_memory()
step = jax.jit(lambda x: jnp.sort(x, 0)[::-1].cumsum(0) + jnp.sort(x, 1))
x = jnp.ones((3000, 4000))
faults = []
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(step(x))
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(statistics.median(faults[3:]))
"""


def has_glibc():
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


def test_kept_memory_is_not_mapped_anew():
    """Counted in page faults, of steps whose arrays are 46 MiB each.

    The median of nine steps: the heap may still grow in one of them.
    """
    if not has_glibc():
        assert not jaxcnn.keep_memory()
        return
    faults = {}
    for how in "keep", "give back":
        done = subprocess.run(
            [sys.executable, "-c", PAGES_OF_A_STEP, how],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd(), "JAX_PLATFORMS": "cpu"},
        )
        faults[how] = float(done.stdout)
    # An array has 11,719 pages of 4 KiB.
    assert faults["keep"] < 1000 < 10_000 < faults["give back"]
