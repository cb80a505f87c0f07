"""Who differentiates an operation: its hand-written rule, or JAX.

Every public function asks :func:`choose` for the function that computes: the one with the
hand-written rule, or the one whose steps JAX differentiates.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import jax

CHOICES = ("custom", "autodiff")

_derivatives = jax.make_user_context("custom")


def derivatives(which: str) -> AbstractContextManager:
    """Choose how every operation of jaxcnn is differentiated, for the code in a ``with``.

    It is the default of every function's own ``derivatives``, and what another library
    gets under :func:`jaxcnn.patch_jax`. ``jax.jit`` keeps one program for each choice:
    JAX's caches know of it.

    Args:
      which: ``"custom"`` for the hand-written rules; ``"autodiff"`` for JAX's own
        differentiation of the same loops.

    Returns:
      A context manager, for one ``with`` and for this thread.

    Raises:
      ValueError: when ``which`` is neither.

    >>> import jax, jax.numpy as jnp, jaxcnn
    >>> x, w = jnp.arange(9.0).reshape(1, 3, 3), jnp.ones((1, 1, 2, 2))
    >>> with jaxcnn.derivatives("autodiff"):
    ...     y, dy = jax.jvp(lambda w: jaxcnn.conv2d(x, w), (w,), (w,))
    >>> bool((y == dy).all())
    True
    """
    return _derivatives(_one_choice(which))


def choose(which: str | None, custom: Callable, autodiff: Callable) -> Callable:
    """The function with the hand-written rule, or the one that JAX differentiates."""
    which = _derivatives.value if which is None else _one_choice(which)
    return autodiff if which == "autodiff" else custom


def _one_choice(which: str) -> str:
    if not isinstance(which, str) or which not in CHOICES:
        raise ValueError(
            f"derivatives is {which!r}; it must be one of {', '.join(map(repr, CHOICES))}"
        )
    return which
