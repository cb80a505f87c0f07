"""Who differentiates an operation: its hand-written rule, or JAX.

Every public function asks :func:`choose` for the function that computes: the one with the
hand-written rule, or the one whose steps JAX differentiates. Around a hand-written rule two
things are done for all of them:

* A ``custom_vjp`` has no forward mode. :func:`_reverse_only` says so in jaxcnn's words, and
  how to get it. It is the identity; its tangents pass through a primitive that vanishes
  when a linear program is transposed, and raises when one is run.
* Inside ``shard_map`` one operand (x) may vary from device to device while another (w)
  does not. The rule's gradient of w would then vary, and JAX refuses it. So all operands
  are made to vary along the same axes, outside the rule. JAX transposes that to a sum over
  devices, which the gradient of w needs.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NoReturn

import jax
from jax.core import Tracer
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxcnn.sharding import varying_like

CHOICES = ("custom", "autodiff")

_derivatives = jax.make_user_context("custom")


def derivatives(which: str) -> AbstractContextManager:
    """Choose how every operation of jaxcnn is differentiated, for the code in a ``with``.

    It is the default of every function's own ``derivatives``, and what another library
    gets under :func:`jaxcnn.patch_jax`. ``jax.jit`` keeps one program for each choice:
    JAX's caches know of it.

    Args:
      which: ``"custom"`` for the hand-written rules; ``"autodiff"`` for JAX's own
        differentiation of the same loops, which has forward mode, too.

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
    if which == "autodiff":
        return autodiff
    return lambda *operands: custom(*_prepared(operands))


def _one_choice(which: str) -> str:
    if which not in CHOICES:
        raise ValueError(
            f"derivatives is {which!r}; it must be one of {', '.join(map(repr, CHOICES))}"
        )
    return which


def _prepared(operands: tuple) -> list:
    """The operands, with all traced arrays among them guarded; others are as they were."""
    traced = [each for each in operands if isinstance(each, Tracer)]
    if not traced:
        return list(operands)
    traced = iter(_reverse_only(traced))
    guarded = [next(traced) if isinstance(x, Tracer) else x for x in operands]
    arrays = [x for x in guarded if isinstance(x, jax.Array)]
    return [varying_like(x, *arrays) if isinstance(x, jax.Array) else x for x in guarded]


# --- No forward mode ------------------------------------------------------------------


@jax.custom_jvp
def _reverse_only(arrays: list) -> list:
    return arrays


def _reverse_only_jvp(primals: tuple[list], tangents: tuple[list]) -> tuple[list, list]:
    guarded = [t if isinstance(t, SymbolicZero) else _passed_p.bind(t) for t in tangents[0]]
    return _reverse_only(*primals), guarded  # guarded anew, for a jvp around this one


_reverse_only.defjvp(_reverse_only_jvp, symbolic_zeros=True)


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise TypeError(
        "forward-mode differentiation (jax.jvp, jax.jacfwd, jax.linearize, jax.hessian) of "
        "jaxcnn's hand-written rules, which are for reverse mode: use "
        "derivatives='autodiff', or `with jaxcnn.derivatives('autodiff'):` around the call"
    )


_passed_p = Primitive("jaxcnn_reverse_only")
_passed_p.def_impl(_refuse)
_passed_p.def_abstract_eval(lambda tangent: tangent)
ad.deflinear(_passed_p, lambda cotangent: [cotangent])
batching.defvectorized(_passed_p)
mlir.register_lowering(_passed_p, _refuse)
