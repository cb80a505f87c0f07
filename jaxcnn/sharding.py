"""Arrays that are sharded over devices, and what JAX must be told about them.

With automatic sharding there is nothing to say. Inside ``shard_map`` JAX keeps track of
the mesh axes along which a value differs from device to device ("varies"), and a loop must
start from a value that varies as its result does. With explicit sharding an array's type
says how it is sharded, and operations that rearrange it ask how their result is to be
sharded. So the sums are computed with automatic sharding, and the result's is said once.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax.core import ShapedArray, Tracer
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec


def varying_axes(x: Any) -> frozenset[str]:
    """The axes of a ``shard_map`` along which x differs from device to device."""
    return jax.typeof(x).manual_axis_type.varying


def varying_like(x: Any, *others: Any) -> Any:
    """x, marked as varying along the axes along which any of the others varies."""
    axes = frozenset[str]().union(*map(varying_axes, others))
    missing = tuple(sorted(axes - varying_axes(x)))
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def varying_alike(operands: Sequence[Any]) -> Sequence[Any]:
    """The operands, all marked as varying along the axes along which any of them does.

    Inside ``shard_map`` one operand (x) may vary from device to device while another (w)
    does not. JAX transposes the mark to a sum over devices, which the gradient of w needs.
    """
    if not any(isinstance(x, Tracer) for x in operands):
        return operands
    return [varying_like(x, *operands) for x in operands]


def explicit_spec(x: Any) -> Sequence:
    """How x, or what has its type, is sharded explicitly: an entry for each axis.

    It is None where x is replicated.
    """
    spec = _sharding(x).spec
    return (*spec, *[None] * (x.ndim - len(spec)))


def _sharding(x: Any) -> NamedSharding:
    return (x if isinstance(x, ShapedArray) else jax.typeof(x)).sharding


def in_auto_axes(
    function: Callable[..., Any],
    operands: Sequence[Any],
    names: Callable[[], Sequence[Sequence[str | None]]],
) -> Callable[..., Any]:
    """The function, with automatic sharding inside where its operands' is explicit.

    Args:
      function: of the operands, and of static keywords.
      operands: arrays.
      names: for each operand, and for the result, a name for each axis, or None. An axis of
        the result is sharded as the operands' axes of that name are; one without a name is
        replicated.
    """
    specs = [explicit_spec(x) for x in operands]
    if not any(map(any, specs)):
        return function
    *of_operands, of_result = names()
    sharded = {}
    for names_of_axes, spec in zip(of_operands, specs, strict=True):
        entries = zip(names_of_axes, spec, strict=True)
        sharded |= {name: entry for name, entry in entries if entry is not None}
    spec = PartitionSpec(*(name and sharded.get(name) for name in of_result))
    mesh = next(_mesh(x) for x in operands if any(explicit_spec(x)))
    sharding = NamedSharding(mesh, spec)

    def automatic(*operands: jax.Array, **known: Any) -> Any:
        inside = partial(function, **known)
        axes = mesh.explicit_axes
        return jax.sharding.auto_axes(inside, axes=axes, out_sharding=sharding)(*operands)

    return automatic


def sharded_like(x: Any, other: Any) -> jax.Array:
    """x, sharded as ``other`` is, with explicit sharding."""
    if explicit_spec(x) == explicit_spec(other):
        return x
    spec = PartitionSpec(*explicit_spec(other))
    return jax.sharding.reshard(x, NamedSharding(_mesh(other), spec))


def replicated_along(x: jax.Array, axes: Sequence[int]) -> jax.Array:
    """x, sharded along none of these axes, with explicit sharding."""
    spec = explicit_spec(x)
    if all(spec[axis] is None for axis in axes):
        return x
    kept = (None if axis in axes else entry for axis, entry in enumerate(spec))
    return jax.sharding.reshard(x, NamedSharding(_mesh(x), PartitionSpec(*kept)))


def _mesh(x: Any) -> Mesh | AbstractMesh:
    return _sharding(x).mesh
