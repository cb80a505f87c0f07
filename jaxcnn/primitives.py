"""How an operation becomes a primitive of JAX's.

A primitive is a name in a jaxpr, and what JAX is told about it:

    computing    a call outside of ``jit`` compiles the primitive alone, and remembers it
    typing       from the shapes and dtypes of its operands, those of its results
    lowering     what XLA is given in its place
    mapping      what ``vmap`` makes of it
    tangents     how its results move as its operands do: forward mode
    transposes   for what is linear: the same map, read backwards

Reverse mode needs no rule of its own. Where X moves by Ẋ, Y = f(X) moves by a tangent Ẏ
that is linear in Ẋ. JAX transposes that map: what takes Ẋ to Ẏ, read backwards, takes the
gradient dY = ∂L/∂Y to dX = ∂L/∂X. So an operation is differentiated by hand, in both modes
and to any order, if its tangent is made of linear primitives whose transposes are written
down.

Convolutions and poolings are sums over windows (:func:`window_sum`): the plan chooses who
computes them when they are lowered. All else is a formula (:func:`formula`).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.interpreters.mlir import LoweringRuleContext as Context
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from jaxcnn import differentiation, plan
from jaxcnn.engines.loops.library import at_hand as loops_at_hand
from jaxcnn.equations import winner_dtype
from jaxcnn.layout import merge_axes, split_axis
from jaxcnn.plan import Lowering
from jaxcnn.problem import ROLES, Problem, describe, loops_by_default, result_shape
from jaxcnn.sharding import sharded_like, varying_alike

Rule = Callable[..., Any]

_steps: dict[Primitive, Rule] = {}
"""For each primitive, what it stands for: a function that JAX can differentiate itself."""


def computing(primitive: Primitive, derivatives: str | None) -> Rule:
    """The primitive, or for ``"autodiff"`` the steps that it stands for."""
    return differentiation.choose(derivatives, primitive.bind, _steps[primitive])


# --- Computing ------------------------------------------------------------------------


def _primitive(
    name: str, steps: Rule, lower: Rule, typed: Rule, mapped: Rule, several: bool
) -> Primitive:
    primitive = Primitive(name)
    _steps[primitive] = steps
    primitive.multiple_results = several
    primitive.def_impl(_compiled(primitive))
    primitive.def_abstract_eval(typed)
    mlir.register_lowering(primitive, lower)
    batching.primitive_batchers[primitive] = partial(mapped, primitive)
    return primitive


def _compiled(primitive: Primitive) -> Rule:
    @lru_cache(maxsize=4096)
    def program(**known: Any) -> Rule:
        alone: Any = partial(primitive.bind, **known)
        alone.__name__ = alone.__qualname__ = primitive.name
        alone._apply_primitive = True  # the search for NaNs asks for both
        return jax.jit(alone)

    def compute(*operands: Any, **known: Any) -> Any:
        if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
            with jax.disable_jit(False):  # to a debugger, a primitive is one step
                return program(**known)(*operands)
        return program(**known)(*operands)

    return compute


# --- Sums over windows ----------------------------------------------------------------


def window_sum(name: str, mapped: Rule, *, called: str | None = None) -> Primitive:
    """The primitive for a function of the engines, of a problem and its result's dtype.

    Args:
      name: of the function, one of :data:`jaxcnn.problem.ROLES`. A convolution's may have
        a third operand, a bias.
      mapped: the mapping rule: of the primitive, its operands, their mapped axes (None
        where there is none), ``problem`` and ``dtype``, to the result and its mapped axis.
      called: the primitive's name, if it is another.
    """
    several = name == "max_pool"
    count = len(ROLES[name]) - 1  # without a bias

    def typed(*operands: Any, problem: Problem, dtype: DTypeLike) -> Any:
        first, *others = operands
        if problem.engine != "auto":
            plan.chosen(describe(name, problem, *operands[:count], dtype=dtype))
        shape = result_shape(name, problem, *(x.shape for x in operands[:count]))
        floats = (x for x in others if jnp.issubdtype(x.dtype, jnp.floating))
        result = first.update(
            shape=tuple(shape),
            dtype=jnp.dtype(dtype),
            weak_type=first.weak_type and all(x.weak_type for x in floats),
            sharding=first.sharding.update(spec=PartitionSpec(*[None] * len(shape))),
        )
        if not several:
            return result
        return result, result.update(dtype=winner_dtype(problem.window), weak_type=False)

    def lower(context: Context, *values: Any, problem: Problem, dtype: DTypeLike) -> Any:
        described = describe(name, problem, *context.avals_in[:count], dtype=dtype)
        by = {
            each.platform: partial(
                plan.compute,
                name,
                problem,
                engine=plan.chosen(described, each).engine,
                dtype=None if several else dtype,
            )
            for each in _lowerings(context)
        }
        compute = next(iter(by.values()))
        if len({each.keywords["engine"] for each in by.values()}) > 1:
            compute = partial(_by_platform, by)
        return mlir.lower_fun(compute, several)(context, *values)

    def by_loops(*operands: Any, problem: Problem, dtype: DTypeLike) -> Any:
        known = {} if several else {"dtype": dtype}
        described = describe(name, problem, *operands[:count], dtype=dtype)
        if plan.hides_from_autodiff(problem.engine, described):
            raise ValueError(
                f"engine is {problem.engine!r}, which JAX cannot differentiate here: use "
                f"another engine with derivatives='autodiff', or derivatives='custom'"
            )
        return plan.compute(name, loops_by_default(problem), *operands, **known)

    return _primitive(called or name, by_loops, lower, typed, mapped, several)


def _by_platform(by: dict[str, Rule], *operands: Any) -> Any:
    return jax.lax.platform_dependent(*operands, **by)


def _lowerings(context: Context) -> list[Lowering]:
    """How a program is being lowered, once for each of its platforms."""
    of_module = context.module_context
    where = of_module.axis_context
    if isinstance(where, mlir.ShardingContext):
        is_partitioned = where.num_devices > 1
    else:  # inside shard_map, which may leave some axes of its mesh to XLA
        is_partitioned = frozenset(where.mesh.axis_names) != where.manual_axes
    is_exported = bool(of_module.lowering_parameters.for_export)
    has_loops = loops_at_hand() is None
    return [
        Lowering(platform, is_exported, is_partitioned, has_loops)
        for platform in context.platforms or of_module.platforms
    ]


# --- Formulas -------------------------------------------------------------------------


def in_front(
    primitive: Primitive,
    operands: Sequence[Any],
    axes: Sequence[int | None],
    /,
    **known: Any,
) -> Any:
    """The mapping rule of what counts its axes from the last: one more comes first."""
    results = primitive.bind(*mapped_at_front(operands, axes), **known)
    return results, jax.tree.map(lambda _: 0, results)


def into_the_batch(
    primitive: Primitive,
    operands: Sequence[Any],
    axes: Sequence[int | None],
    /,
    **known: Any,
) -> Any:
    """The mapping rule of what treats all images alike: the batch takes in the axis."""
    mapped = mapped_at_front(operands, axes)
    size, batch = mapped[0].shape[:2]
    results = primitive.bind(*(merge_axes(x, 0, 2) for x in mapped), **known)
    unfolded = jax.tree.map(lambda x: split_axis(x, 0, size, batch), results)
    return unfolded, jax.tree.map(lambda _: 0, results)


def mapped_at_front(operands: Sequence[Any], axes: Sequence[int | None]) -> list[Any]:
    """All operands with their mapped axis first, those without one repeated."""
    (size, *_) = (x.shape[k] for x, k in zip(operands, axes, strict=True) if k is not None)
    return [
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    ]


def formula(
    compute: Rule, called: str, *, several: bool = False, mapped: Rule = in_front
) -> Primitive:
    """The primitive for a formula.

    Args:
      compute: of arrays and of static keywords.
      called: the primitive's name.
      several: whether it has a tuple of results.
      mapped: the mapping rule.
    """

    def typed(*operands: Any, **known: Any) -> Any:
        results = jax.make_jaxpr(partial(compute, **known))(*operands).out_avals
        return results if several else results[0]

    def lower(context: Context, *values: Any, **known: Any) -> Any:
        return mlir.lower_fun(partial(compute, **known), several)(context, *values)

    return _primitive(called, compute, lower, typed, mapped, several)


# --- Tangents and transposes ----------------------------------------------------------


def is_moved(tangent: Any) -> bool:
    """Whether an operand moves; JAX marks those that are constant, or integers."""
    return type(tangent) is not ad.Zero


def at_rest(result: Any) -> Any:
    """The tangent of a result that does not move."""
    return ad.Zero(jax.typeof(result).to_tangent_aval())


def with_tangent(
    primitive: Primitive, tangent: Primitive, kept: Callable[..., Sequence[Any]]
) -> None:
    """Tell JAX the tangent of what is not linear.

    Args:
      primitive: computes Y from its operands X, …
      tangent: computes Ẏ from Ẋ and from what is kept; linear in Ẋ.
      kept: of the operands and of Y.
    """

    def jvp(operands: Sequence[Any], tangents: Sequence[Any], **known: Any) -> Any:
        y = primitive.bind(*operands, **known)
        return y, tangent.bind(tangents[0], *kept(*operands, y), **known)

    ad.primitive_jvps[primitive] = jvp


def product(primitive: Primitive, *transposes: Rule, plus: tuple[Rule, ...] = ()) -> None:
    """Tell JAX that a primitive is linear in each of its operands by itself.

    In Ẏ = Ẋ · W + X · Ẇ + ḃ the first two terms are the primitive again.

    Args:
      primitive: computes Y from the operands.
      transposes: for each of these: of dY, all operands (in the place of the sought one an
        object with its ``aval``) and the static keywords, to the sought gradient.
      plus: if a further operand may be added: of its tangent and of Y, what it adds to Ẏ;
        and the transpose of that.
    """
    n = len(transposes)

    def jvp(operands: Sequence[Any], tangents: Sequence[Any], **known: Any) -> Any:
        result = primitive.bind(*operands, **known)
        moved = at_rest(result)
        for k, each in enumerate(tangents):
            if not is_moved(each):
                continue
            if k < n:
                with_it = varying_alike([*operands[:k], each, *operands[k + 1 : n]])
                term = primitive.bind(*with_it, **known)
            else:
                term = plus[0](each, result, **known)
            moved = ad.add_tangents(moved, term)
        return result, moved

    def transposed(arriving: Any, *operands: Any, **known: Any) -> list:
        rules = (*transposes, *plus[1:])
        return [
            _like(rule(arriving, *operands, **known), operand)
            if ad.is_undefined_primal(operand) and is_moved(arriving)
            else None
            for rule, operand in zip(rules, operands, strict=False)
        ]

    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transposed


def _like(gradient: Any, operand: Any) -> Any:
    """A gradient in the dtype of its operand, and sharded as that is."""
    if gradient.dtype != operand.aval.dtype:  # or a weak type would become a strong one
        gradient = gradient.astype(operand.aval.dtype)
    return sharded_like(gradient, operand.aval)


def transposes_of_each_other(
    first: Primitive, second: Primitive, counts: tuple[int, int] = (1, 1)
) -> None:
    """Tell JAX that two maps are each other's transpose: ⟨A·X, Y⟩ = ⟨X, Aᵀ·Y⟩.

    JAX differentiates their formulas by what they keep.

    Args:
      first, second: take their linear operands, then what both keep. One that is given
        twice is symmetric.
      counts: how many linear operands each has: as many as the other has results.
    """
    _linear(first, second, counts[0])
    _linear(second, first, counts[1])


def _linear(primitive: Primitive, other: Primitive, n: int) -> None:
    """Linear in the first n operands together, and ``other`` its transpose."""

    def jvp(operands: Sequence[Any], tangents: Sequence[Any], **known: Any) -> Any:
        results = primitive.bind(*operands, **known)
        several = primitive.multiple_results
        moved = [at_rest(result) for result in (results if several else [results])]

        def add(terms: Any) -> None:
            terms = terms if several else [terms]
            moved[:] = map(ad.add_tangents, moved, terms)

        if any(map(is_moved, tangents[:n])):
            linear = map(ad.instantiate_zeros, tangents[:n])
            add(primitive.bind(*varying_alike([*linear, *operands[n:]]), **known))
        kept = [k for k, each in enumerate(tangents) if k >= n and is_moved(each)]
        if kept:

            def by_what_is_kept(*values: Any) -> Any:
                replaced = list(operands)
                for k, value in zip(kept, values, strict=True):
                    replaced[k] = value
                return _steps[primitive](*replaced, **known)

            at, along = ([each[k] for k in kept] for each in (operands, tangents))
            add(jax.jvp(by_what_is_kept, at, along)[1])
        return results, moved if several else moved[0]

    def transposed(arriving: Any, *operands: Any, **known: Any) -> list:
        arriving = arriving if primitive.multiple_results else [arriving]
        if not any(map(is_moved, arriving)):
            return [None] * len(operands)
        arriving = map(ad.instantiate_zeros, arriving)
        gradients = other.bind(*varying_alike([*arriving, *operands[n:]]), **known)
        gradients = gradients if other.multiple_results else [gradients]
        return [
            _like(gradient, operand) if ad.is_undefined_primal(operand) else None
            for gradient, operand in zip(gradients, operands[:n], strict=True)
        ] + [None] * len(operands[n:])

    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transposed
