"""Arrays that are sharded over devices, and what JAX must be told about them.

With automatic sharding there is nothing to say. Inside ``shard_map`` JAX keeps track of
the mesh axes along which a value differs from device to device ("varies"), and a loop must
start from a value that varies as its result does. With explicit sharding an array's type
says how it is sharded, and operations that rearrange it ask how their result is to be
sharded. So the sums are computed with automatic sharding, and the result's is said once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec


def varying_axes(x: jax.Array) -> frozenset[str]:
    """The axes of a ``shard_map`` along which x differs from device to device."""
    return jax.typeof(x).manual_axis_type.varying


def varying_like(x: jax.Array, *others: jax.Array) -> jax.Array:
    """x, marked as varying along the axes along which any of the others varies."""
    axes = frozenset[str]().union(*map(varying_axes, others))
    missing = tuple(sorted(axes - varying_axes(x)))
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def explicit_spec(x: jax.Array) -> Sequence:
    """How x is sharded explicitly: an entry for each axis, None where it is replicated."""
    spec = jax.typeof(x).sharding.spec
    return (*spec, *[None] * (x.ndim - len(spec)))


def with_auto_axes(
    function: Callable,
    axes: Sequence[Sequence[str | None]],
    axes_of_result: Sequence[str | None],
    *operands: jax.Array,
) -> Any:
    """``function(*operands)`` with automatic sharding inside, where it is explicit outside.

    Args:
      function: of the operands.
      axes: for each operand, a name for each of its axes, or None.
      axes_of_result: likewise. An axis of the result is sharded as the operands' axes of
        that name are; one without a name is replicated.
      operands: arrays.
    """
    sharded = {}
    for names, operand in zip(axes, operands, strict=True):
        entries = zip(names, explicit_spec(operand), strict=True)
        sharded |= {name: entry for name, entry in entries if entry is not None}
    if not sharded:
        return function(*operands)
    spec = PartitionSpec(*(name and sharded.get(name) for name in axes_of_result))
    mesh = next(_mesh(x) for x in operands if any(explicit_spec(x)))
    sharding = NamedSharding(mesh, spec)
    automatic = jax.sharding.auto_axes(
        function, axes=mesh.explicit_axes, out_sharding=sharding
    )
    return automatic(*operands)


def sharded_like(x: Any, other: jax.Array) -> jax.Array:
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


def _mesh(x: jax.Array) -> Mesh | AbstractMesh:
    return jax.typeof(x).sharding.mesh
