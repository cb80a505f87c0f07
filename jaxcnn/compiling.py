"""What makes programs on a CPU faster: options for XLA's compiler, and kept memory."""

import ctypes
from functools import cache

import jax

SINCE = (0, 12)
"""The first version of jax whose compiler knows these options and gains from them."""

OPTIONS = {"xla_cpu_experimental_onednn_custom_call": True}
"""Convolutions of few channels go to oneDNN, which is off in jaxlib by default."""


def compiler_options() -> dict[str, bool]:
    """What to hand to ``jax.jit`` so that convolutions on a CPU are faster still.

    ``jax.jit(step, compiler_options=jaxcnn.compiler_options())`` computes the same, to
    within rounding. The options are experimental ones of XLA: a version of jax that does
    not know them, or gains nothing from them, gets none. On GPUs and TPUs they change
    nothing.

    Returns:
      Options for ``compiler_options`` of :func:`jax.jit`; a new dict, possibly empty.

    Cost: the first call compiles a program of one addition, to see whether the compiler
    knows the options.

    >>> import jax.numpy as jnp
    >>> double = jax.jit(lambda x: x + x, compiler_options=compiler_options())
    >>> double(jnp.ones(2))
    Array([2., 2.], dtype=float32)
    """
    return dict(_known_options())


@cache
def _known_options() -> dict[str, bool]:
    return OPTIONS if jax.__version_info__ >= SINCE and _is_known(OPTIONS) else {}


def _is_known(options: dict[str, bool]) -> bool:
    """Whether a compiler takes the options, rather than raising an exception."""
    try:
        program = jax.jit(lambda x: x + x, compiler_options=options)
        program.lower(jax.ShapeDtypeStruct((), "float32")).compile()
    except Exception:  # XLA's own, which JAX does not name
        return False
    return True


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""What to change, in ``malloc.h``: from which size on free memory is given back to the
system, and for how many arrays the system is asked for memory of their own."""


def keep_memory() -> bool:
    """Keep the memory of a step for the next one, instead of giving it back to Linux.

    XLA allocates the temporary arrays of a program anew at every call, and from 32 MiB on
    the C library hands such memory back to Linux at once. Then every step writes to pages
    that Linux must first find and clear, which can take as long as the step itself. After
    this call the memory stays with the process, which takes no more than before at its
    peak, and never less later on.

    Call it before JAX is first used: it also switches asynchronous dispatch on CPUs off
    (``jax_cpu_enable_async_dispatch``), since memory that another thread allocates is not
    kept. On other systems than Linux with glibc it does nothing.

    Returns:
      Whether memory is kept.

    Source: ``man 3 mallopt``.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc
        return False
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    most = 2**31 - 1
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, most))
