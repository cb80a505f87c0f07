"""Two functions that should be one, side by side: values, derivatives, time, memory."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.checking.gradcheck import argument_names, kind_of, leaf_names, why


@dataclass(frozen=True)
class Difference:
    """How far two arrays are from each other.

    Attributes:
      what: ``"value"``, ``"gradient"``, ``"tangent"`` or ``"second derivative"``.
      name: which result, or by which argument.
      error: ``max |a − b| / max |b|``; 0 where both are zero everywhere; infinite where
        there is nothing to compare.
      place: of the entry that is off the most.
      entries: that entry of a and of b.
      problem: why there is nothing to compare, else empty.
    """

    what: str
    name: str
    error: float
    place: tuple[int, ...] = ()
    entries: tuple[Any, Any] = (None, None)
    problem: str = ""

    @property
    def title(self) -> str:
        return f"{self.what} {self.name}".strip()


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found; prints as a table.

    Attributes:
      names: of the two functions.
      differences: of their values, gradients, tangents and second derivatives, array by
        array.
      milliseconds: of value and gradient together, compiled: the median of each.
      temporary_bytes: what that program needs besides its arguments and results; None
        where the compiler does not say.
    """

    names: tuple[str, str]
    differences: tuple[Difference, ...]
    milliseconds: tuple[float, ...]
    temporary_bytes: tuple[int | None, ...]

    @property
    def error(self) -> float:
        """The largest of all differences, but for tangents that one of them lacks."""
        return max(
            each.error
            for each in self.differences
            if each.what != "tangent" or not each.problem
        )

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("", "off by", "at", *self.names)]
        for each in self.differences:
            if not each.problem:
                values = (f"{value:.8g}" for value in each.entries)
                place = str(list(each.place)) if each.place else ""
                rows.append((each.title, f"{each.error:.1e}", place, *values))
        times = (f"{ms:.3g} ms" for ms in self.milliseconds)
        sizes = ("?" if b is None else f"{b / 2**20:.3g} MiB" for b in self.temporary_bytes)
        rows.append(("time", "", "", *times))
        rows.append(("temporary memory", "", "", *sizes))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        ]
        problems = (each for each in self.differences if each.problem)
        lines += [f"{each.title}: {each.problem}" for each in problems]
        return "\n".join(line.rstrip() for line in lines)


def compare(
    f: Callable,
    g: Callable,
    *args: Any,
    names: tuple[str, str] = ("f", "g"),
    rounds: int = 9,
    seed: int = 0,
) -> Comparison:
    r"""Set two functions side by side: values, derivatives, time and memory.

    .. math::

        f(x), \qquad \nabla \langle f(x), c \rangle, \qquad
        \frac{\mathrm{d}}{\mathrm{d}t} f(x + t v) \Big|_{t=0}, \qquad
        \nabla \big\langle \nabla \langle f(x), c \rangle, v \big\rangle

    Both are compiled and called with the same arguments, as they are, in their precision.
    Gradients and second derivatives are by reverse mode, tangents by forward mode; c and v
    are drawn at random, the same for both.

    Args:
      f, g: from arrays, or pytrees of them, to arrays or pytrees of them.
      args: what both are called with; floating and complex arrays are differentiated by.
      names: what they are called in the table.
      rounds: how often each is timed, taking turns, after one call to warm up.
      seed: of c and v.

    Returns:
      A :class:`Comparison`, which prints as a table. Where one of them has no gradient, no
      tangent or no second derivative, it says so, and why. Only a lack of tangents leaves
      its ``error`` as it is: many functions have no forward mode.

    Raises:
      TypeError: when ``names`` are not two strings.
      ValueError: when results differ in structure, shapes or dtypes, or ``rounds`` is not
        a positive int.
      Exception: what f or g raise when they are called.

    Cost: compiles each function four times.

    >>> import jax.numpy as jnp, jaxcnn
    >>> x = jnp.linspace(-1.0, 1.0, 64).reshape(1, 8, 8)
    >>> comparison = jaxcnn.compare(jaxcnn.relu, lambda x: jnp.where(x > 0, x, 0), x)
    >>> comparison.error, comparison.differences[1].what
    (0.0, 'gradient')
    """
    is_pair = isinstance(names, list | tuple) and len(names) == 2
    if not is_pair or not all(isinstance(name, str) for name in names):
        raise TypeError(f"names is {names!r}; it must be two strings, one for f and for g")
    if not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"rounds is {rounds!r}; it must be a positive int")
    args = jax.device_put(args)
    ours, theirs = (jax.eval_shape(each, *args) for each in (f, g))
    kinds = [str(jax.tree.map(kind_of, each)) for each in (ours, theirs)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"{names[0]} gives {kinds[0]} and {names[1]} gives {kinds[1]}: that cannot be "
            f"compared"
        )
    leaves, structure = jax.tree.flatten(args)
    chosen = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    point = [leaves[i] for i in chosen]
    rng = np.random.default_rng(seed)
    c, v = _random_like(ours, rng), _random_like(point, rng)

    def value_of(function):
        def value(point):
            filled = list(leaves)
            for i, array in zip(chosen, point, strict=True):
                filled[i] = array
            return function(*jax.tree.unflatten(structure, filled))

        return value

    def gradient_of(function):
        def loss(point):
            y = value_of(function)(point)
            return _inner_product(y, c), y

        return jax.grad(loss, has_aux=True)

    def tangent_of(function):
        def tangent(point):
            y, dy = jax.jvp(value_of(function), (point,), (list(map(jnp.asarray, v)),))
            of_floats = zip(jax.tree.leaves(dy), c, strict=True)
            return [each for each, drawn in of_floats if drawn is not None], y

        return tangent

    def second_of(function):
        def steepness(point):
            slopes, y = gradient_of(function)(point)
            return _inner_product(slopes, v), y

        return jax.grad(steepness, has_aux=True)

    programs = [jax.jit(value_of(each)).lower(point).compile() for each in (f, g)]
    values = [program(point) for program in programs]
    of_results = leaf_names((ours,), ("",))
    differences = _differences("value", of_results, *values)
    of_arguments = leaf_names(args, argument_names(f, args))
    by = [of_arguments[i] for i in chosen]
    of_floats = [
        name for name, drawn in zip(of_results, c, strict=True) if drawn is not None
    ]
    derivatives = {
        "gradient": (gradient_of, by),
        "tangent": (tangent_of, of_floats),
        "second derivative": (second_of, by),
    }
    for what, (of, of_arrays) in derivatives.items() if chosen else ():
        made, problem = _attempts(of, (f, g), names, point)
        if problem:
            differences.append(Difference(what, "", np.inf, problem=problem))
            continue
        differences += _differences(what, of_arrays, *(each(point)[0] for each in made))
        if what == "gradient":
            programs = made
    return Comparison(
        (names[0], names[1]),
        tuple(differences),
        tuple(_milliseconds(programs, point, rounds)),
        tuple(
            getattr(program.memory_analysis(), "temp_size_in_bytes", None)
            for program in programs
        ),
    )


def _random_like(tree: Any, rng: np.random.Generator) -> list[np.ndarray | None]:
    """For each array one like it, normal; None where it has no derivative."""

    def like(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return None
        drawn = rng.standard_normal((2, *leaf.shape))
        is_complex = jnp.issubdtype(leaf.dtype, jnp.complexfloating)
        return (drawn[0] + 1j * drawn[1] if is_complex else drawn[0]).astype(leaf.dtype)

    return list(map(like, jax.tree.leaves(tree)))


def _inner_product(tree: Any, drawn: Sequence[np.ndarray | None]) -> jax.Array | int:
    """Re Σ a* b, over all arrays that have derivatives."""
    pairs = zip(jax.tree.leaves(tree), drawn, strict=True)
    return sum(jnp.real(jnp.vdot(b, a)) for a, b in pairs if b is not None)


def _attempts(
    of: Callable[[Callable], Callable],
    functions: tuple[Callable, Callable],
    names: tuple[str, str],
    point: list[jax.Array],
) -> tuple[list[jax.stages.Compiled], str]:
    """Both programs, or what is wrong."""
    programs, problems = [], []
    for name, function in zip(names, functions, strict=True):
        try:
            programs.append(jax.jit(of(function)).lower(point).compile())
        except Exception as error:
            problems.append(f"{name} has none: {why(error)}")
    return programs, "; ".join(problems)


def _differences(
    what: str, names: Sequence[str], ours: Any, theirs: Any
) -> list[Difference]:
    differences = []
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    for name, pair in zip(names, pairs, strict=True):
        wide = np.complex128 if np.iscomplexobj(pair[0]) else np.float64
        a, b = (np.asarray(each).astype(wide) for each in pair)
        if not a.size:
            differences.append(Difference(what, name, 0.0))
            continue
        with np.errstate(invalid="ignore"):
            deviations = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b))
        deviations = np.nan_to_num(deviations, nan=np.inf, posinf=np.inf)
        place = np.unravel_index(np.argmax(deviations), deviations.shape)
        largest = np.abs(b[np.isfinite(b)]).max(initial=0)
        worst = float(deviations[place])
        error = worst / float(largest) if largest else worst
        entries = a[place].item(), b[place].item()
        differences.append(Difference(what, name, error, tuple(map(int, place)), entries))
    return differences


def _milliseconds(
    programs: Sequence[jax.stages.Compiled], point: list[jax.Array], rounds: int
) -> list[float]:
    """The median of each, all taking turns."""
    seconds = [[] for _ in programs]
    for program in programs:
        jax.block_until_ready(program(point))
    for _ in range(rounds):
        for program, times in zip(programs, seconds, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(program(point))
            times.append(time.perf_counter() - start)
    return [1000 * statistics.median(times) for times in seconds]
