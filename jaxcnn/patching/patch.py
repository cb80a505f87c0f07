"""jaxcnn behind JAX's own names, so that code written for ``jax.lax`` runs its rules.

Much code refers to JAX's functions from before the patch: ``from jax.lax import …`` in a
module, a default argument in a class, JAX's own modules. So the patch exchanges not the
functions but their *code*, and every reference calls the new code. That asks
:data:`jaxcnn.originals.serving`, which JAX's caches know of, who answers: jaxcnn, or a copy
of the function with JAX's code. So other threads, and programs compiled before the patch,
keep JAX's meaning, and what is traced under the patch is traced anew.
"""

import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import jax

from jaxcnn import originals
from jaxcnn.patching import drop_in


def patch_jax(*, verbose: bool = True) -> None:
    """Let jaxcnn compute what ``jax.lax`` does, everywhere, until :func:`unpatch_jax`.

    :func:`jax.lax.conv_general_dilated` and :func:`jax.lax.reduce_window`, and all who call
    them (flax, equinox, haiku, Keras on JAX, :func:`jax.lax.conv_transpose` …), run the
    functions of :mod:`jaxcnn.patching.drop_in`, in all threads. Programs compiled before
    are kept for when the patch is gone; until then functions are compiled anew.

    Args:
      verbose: whether to say so, in one line to stderr.

    Raises:
      RuntimeError: when JAX's functions are not what this version of jaxcnn knows.

    Derivatives: jaxcnn's hand-written rules; within
    ``with jaxcnn.derivatives("autodiff"):``, JAX's of the same loops.

    Source: ``sklearnex.patch_sklearn``.

    >>> x, w = jax.numpy.ones((1, 1, 5, 5)), jax.numpy.ones((1, 1, 3, 3))
    >>> patch_jax(verbose=False)
    >>> jax.lax.conv_general_dilated(x, w, (1, 1), "SAME").shape
    (1, 1, 5, 5)
    >>> unpatch_jax()
    """
    with _lock:
        if not originals.serving.get_global():
            _count_patches(1)
            originals.serving.set_global(True)
    if verbose:
        names = " and ".join(f"jax.lax.{function.__name__}" for function in _CODE)
        print(
            f"jaxcnn: {names} run jaxcnn's rules now; unpatch_jax() gives JAX's back",
            file=sys.stderr,
        )


def unpatch_jax() -> None:
    """Give JAX its functions back, after :func:`patch_jax`."""
    with _lock:
        if originals.serving.get_global():
            originals.serving.set_global(False)
            _count_patches(-1)


@contextmanager
def patched_jax() -> Iterator[None]:
    """Let jaxcnn compute what ``jax.lax`` does, for the code in a ``with``, in its thread.

    The same as :func:`patch_jax`, without its line to stderr.

    >>> x = jax.numpy.arange(4.0)
    >>> with patched_jax():
    ...     y = jax.lax.reduce_window(x, 0.0, jax.lax.add, (2,), (2,))
    >>> y.tolist()
    [1.0, 5.0]
    """
    _count_patches(1)
    try:
        with originals.serving(True):
            yield
    finally:
        _count_patches(-1)


# --- What is exchanged ----------------------------------------------------------------


def _conv_general_dilated(
    lhs,
    rhs,
    window_strides,
    padding,
    lhs_dilation,
    rhs_dilation,
    dimension_numbers,
    feature_group_count,
    batch_group_count,
    precision,
    preferred_element_type,
    out_sharding,
):
    arguments = locals()
    from jaxcnn import originals  # this code's globals are those of JAX's module
    from jaxcnn.patching import drop_in

    asked = drop_in if originals.serving.value else originals
    return asked.conv_general_dilated(**arguments)


def _reduce_window(
    operand,
    init_value,
    computation,
    window_dimensions,
    window_strides,
    padding,
    base_dilation,
    window_dilation,
):
    arguments = locals()
    from jaxcnn import originals
    from jaxcnn.patching import drop_in

    asked = drop_in if originals.serving.value else originals
    return asked.reduce_window(**arguments)


_CODE = dict(zip(originals.EXCHANGED, (_conv_general_dilated, _reduce_window), strict=True))
"""For each of JAX's functions, the one whose code it has while there is a patch."""

_lock = threading.RLock()
_patches = 0


def _count_patches(change: int) -> None:
    """One patch more or less: JAX's functions have their own code when there is none."""
    global _patches  # noqa: PLW0603
    with _lock:
        if not _patches:
            _check()
        _patches += change
        for function, new in _CODE.items():
            source = new if _patches else getattr(originals, function.__name__)
            function.__code__ = source.__code__


def _check() -> None:
    """Refuse functions of JAX that cannot be exchanged for jaxcnn's."""
    for function in _CODE:
        name = f"jax.lax.{function.__name__} of JAX {jax.__version__}"
        if not isinstance(function, FunctionType) or function.__closure__:
            raise RuntimeError(f"{name} is no plain function, so it cannot be patched")
        ours = getattr(drop_in, function.__name__)
        if _defaults(function) != _defaults(ours):
            raise RuntimeError(
                f"{name} has the parameters {_defaults(function)}; to be patched it must "
                f"have {_defaults(ours)}: use a newer jaxcnn, or an older JAX"
            )


def _defaults(function: Callable) -> dict[str, Any]:
    """The parameters, by name, and what they are by default."""
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters}
