"""Is a gradient right? Every entry of the Jacobian, in both modes, in float64.

From top to bottom: what is found, and how it reads; the function; one vector of real
numbers for all arguments, and one for all results; the Jacobian, by f's rules and by
differences; what they say of each other.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxcnn.checking import differences

MODES = {"reverse": "cotangent", "forward": "tangent"}  # and what arrives in each
MOST = 10**8  # entries of a Jacobian, 8 GB of all that is known of them
ARRIVING = ("positive", "negative", "large", "small", "of many sizes")


class Derivative(NamedTuple):
    """One derivative, known in two ways.

    Attributes:
      output, input: the entries, as they are written in Python: ``"f[0, 3]"``, ``"w[1]"``.
        Where linearity is checked, one of them is ``"⟨c, f⟩"``, all of f weighted by a
        cotangent, or ``"v"``, a tangent.
      found, expected: its values.
      by: how each was found, as ``("in reverse mode", "by differences")``.
      tolerance: by how much they may differ.
      note: what else is known of that place; else empty.
    """

    output: str
    input: str
    found: float
    expected: float
    by: tuple[str, str]
    tolerance: float
    note: str = ""

    @property
    def error(self) -> float:
        if self.found == self.expected:
            return 0.0
        error = abs(self.found - self.expected)
        return math.inf if math.isnan(error) else error

    @property
    def ok(self) -> bool:
        return math.isfinite(self.error) and self.error <= self.tolerance

    def __str__(self) -> str:
        if self.ok:
            return f"the worst off by {self.error:.1e} (tolerated: {self.tolerance:.1e})"
        text = (
            f"∂ {self.output} / ∂ {self.input} is {self.found:.12g} {self.by[0]} and "
            f"{self.expected:.12g} {self.by[1]}"
        )
        if math.isfinite(self.error):
            text += f": they differ by {self.error:.2g}, tolerated is {self.tolerance:.2g}"
        return text + self.note


@dataclass(frozen=True)
class ArgumentCheck:
    """What was found for one argument, or for one array of it.

    Attributes:
      name: as f's signature has it, and where in it the array is.
      dtype, shape: as it was given.
      checked: how many derivatives were compared: entries of f times entries of it; 0
        for integers and booleans, which have none.
      worst: the one with the largest error for its tolerance; None where there is none.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    checked: int
    worst: Derivative | None

    @property
    def ok(self) -> bool:
        return self.worst is None or self.worst.ok

    def __str__(self) -> str:
        text = f"{self.name}: {kind_of(self)}"
        if self.worst is None:
            return f"– {text} has no derivatives"
        if not self.ok:
            return f"✗ {text} {self.worst}"
        return f"✓ {text} {self.checked:,} derivatives, {self.worst}"


@dataclass(frozen=True)
class ModeCheck:
    """Whether a mode is linear in what arrives: cotangents, or tangents.

    Attributes:
      mode: ``"reverse"`` or ``"forward"``.
      worst: the derivative for a random cotangent, or along a random tangent, with the
        largest error for its tolerance; None where f has no such mode.
      problem: why f has no such mode, else empty.
    """

    mode: str
    worst: Derivative | None
    problem: str = ""

    @property
    def ok(self) -> bool:
        return self.worst is None or self.worst.ok

    def __str__(self) -> str:
        if self.worst is None:
            return f"– {self.mode} mode: f has none ({self.problem})"
        of = f"linear in the {MODES[self.mode]}"
        if not self.ok:
            return f"✗ {self.mode} mode: not {of}: {self.worst}"
        return f"✓ {self.mode} mode: {of}"


@dataclass(frozen=True)
class GradientCheck:
    """What :func:`gradcheck` found; prints as a line for each argument and each mode.

    Attributes:
      arguments: what was found for each, in order.
      modes: what was found for each, and whether f has it.
    """

    arguments: tuple[ArgumentCheck, ...]
    modes: tuple[ModeCheck, ...]

    @property
    def ok(self) -> bool:
        """Whether all derivatives are right, in each mode that f has."""
        return all(each.ok for each in (*self.arguments, *self.modes))

    def __str__(self) -> str:
        return "\n".join(map(str, (*self.arguments, *self.modes)))


def gradcheck(
    f: Callable,
    *args: Any,
    mode: str = "both",
    rtol: float = 1e-11,
    atol: float = 0.0,
    jit: bool = True,
    raises: bool = True,
) -> GradientCheck:
    r"""Check every derivative of a function, in reverse and in forward mode, in float64.

    .. math::

        J_{ij} = \frac{\partial f_i}{\partial x_j} \stackrel{?}{=}
            \frac{f_i(x + h e_j) - f_i(x - h e_j)}{2 h} + O(h^2), \qquad
        J^T c \stackrel{?}{=} \sum_i c_i J_{i \cdot}, \qquad
        J v \stackrel{?}{=} \sum_j v_j J_{\cdot j}

    All of J is computed by the rules of f: by reverse mode, as :func:`jax.grad` and
    :func:`jax.vjp` use them, a row for each entry of f; and by forward mode, as
    :func:`jax.jvp` uses them, a column for each entry of x. Both are compared with
    differences, and with each other. A check along one random direction, such as
    ``jax.test_util.check_grads``, finds that something is wrong; this says which
    derivative it is. Then both modes must be linear: what they give for random cotangents
    c and tangents v, positive, negative, large and small, is the same sum of derivatives.

    Differences know how far they may be off. Each entry of x is moved by twelve steps,
    from 1/8 of the largest entry of its array (or of 1, if that is larger) to 2⁻³⁶ of
    itself. Richardson's extrapolation takes the error of order h² from two neighbouring
    steps. The distance of two extrapolations tells what is left, and the rounding of f,
    measured at 16 points close to x, what rounding adds. Each derivative takes the three
    neighbouring steps with the least error, coming from small ones, up to where large ones
    contradict them. So each has its own tolerance, in most functions below 1e-9 of the
    largest derivative; one that is hard to know does not widen another's. Where f is the
    small rest of large numbers, as a loss of 1e-13 is, pass ``atol``.

    Args:
      f: any function that JAX differentiates, not only those of jaxcnn, from arrays, or
        pytrees of them, to arrays or pytrees of them.
      args: where to check. Floating arrays are taken as float64, whatever they are and
        whether or not ``jax_enable_x64`` is set. Complex ones are complex128, and their
        real and imaginary parts are checked as if they were arguments of their own, and
        so are those of complex results. Integers, booleans and keys are held, and what f
        gives of them is ignored.
      mode: ``"both"``; or ``"reverse"`` or ``"forward"`` alone. With ``"both"``, a function
        without forward mode, such as a ``jax.custom_vjp`` of your own, is checked in
        reverse mode, and the result says so.
      rtol, atol: the modes may differ by ``atol + rtol · max |J| + r / H``. The maximum is
        over one argument's derivatives of one result; r is eight times the rounding of f,
        as measured, and of its largest entry; H is the largest of the three steps. A mode
        and a difference may differ by twice the distance of the two extrapolations and
        ``r / h`` more, where h is the smallest step.
      jit: whether f may be compiled; pass False where it takes decisions by the values of
        its arguments.
      raises: whether to raise if a derivative is wrong.

    Returns:
      A :class:`GradientCheck`: for each argument the worst derivative, where it is, its
      two values and the tolerance; and for each mode whether it is linear.

    Raises:
      AssertionError: when a derivative is wrong, with the text of that result.
      TypeError: when f has no floating argument or no floating result, or where that is
        not float64 though the arguments are, so that differences show rounding alone.
      ValueError: when ``mode`` is another, or J has more than 100 million entries.
      Exception: what JAX raises where f has no reverse mode, or not the ``mode`` asked for.

    Cost: f's gradient once for each entry of f; f's tangent once and f itself 24 times for
    each entry of its arguments; 80 bytes for each of J's entries. Four programs are
    compiled. Small arrays show as much as large ones.

    Source: Griewank and Walther, *Evaluating Derivatives* (2008), chapters 1 to 3; Ridders,
    "Accurate computation of F′(x) and F′(x) F″(x)" (1982); Moré and Wild, "Estimating
    computational noise" (2011).

    >>> import jax.numpy as jnp, jaxcnn
    >>> x, w = jnp.linspace(-1, 1, 25).reshape(1, 5, 5), jnp.ones((2, 1, 3, 3))
    >>> print(jaxcnn.gradcheck(jaxcnn.conv2d, x, w))  # doctest: +ELLIPSIS
    ✓ x: float32[1,5,5] 450 derivatives, the worst off by ... (tolerated: ...)
    ✓ w: float32[2,1,3,3] 324 derivatives, the worst off by ... (tolerated: ...)
    ✓ reverse mode: linear in the cotangent...
    """
    if not isinstance(mode, str) or mode not in ("both", *MODES):
        raise ValueError(f"mode is {mode!r}; it must be 'both', 'reverse' or 'forward'")
    # Differences may leave the domain of f, which is no mistake of its.
    with (
        jax.enable_x64(True),
        jax.default_matmul_precision("highest"),
        jax.debug_nans(False),
        jax.debug_infs(False),
    ):
        check = _checked(f, args, mode, rtol, atol, jit)
    if raises and not check.ok:
        raise AssertionError(f"a derivative is wrong:\n{check}")
    return check


# --- From arrays to one vector of real numbers, and back ------------------------------


class _Part(NamedTuple):
    """An array whose entries are some of a vector's."""

    name: str
    shape: tuple[int, ...]
    dtype: Any
    is_complex: bool
    start: int
    stop: int

    @property
    def entries(self) -> slice:
        return slice(self.start, self.stop)

    def entry(self, number: int) -> str:
        """How the vector's entry of this number is written as one of the array."""
        imaginary, number = divmod(number - self.start, max(1, math.prod(self.shape)))
        place = ", ".join(str(i) for i in np.unravel_index(number, self.shape))
        text = f"{self.name}[{place}]" if self.shape else self.name
        return f"{('Re', 'Im')[imaginary]} {text}" if self.is_complex else text


class _Tree:
    """A pytree whose floating and complex arrays are one vector, while others are held."""

    def __init__(self, tree: Any, names: list[str]):
        leaves, self.structure = jax.tree.flatten(tree)
        self.held: list[Any] = leaves
        self.names = names
        self.parts: dict[int, _Part] = {}
        start = 0
        for i, leaf in enumerate(leaves):
            if not jnp.issubdtype(leaf.dtype, jnp.inexact):
                continue
            is_complex = jnp.issubdtype(leaf.dtype, jnp.complexfloating)
            stop = start + math.prod(leaf.shape) * (2 if is_complex else 1)
            part = _Part(names[i], leaf.shape, leaf.dtype, bool(is_complex), start, stop)
            self.parts[i] = part
            start = stop
        self.size = start

    def vector(self, tree: Any, library: ModuleType = jnp) -> Any:
        leaves = jax.tree.leaves(tree)
        pieces = []
        for i, part in self.parts.items():
            leaf = library.asarray(leaves[i])
            both = (leaf.real, leaf.imag) if part.is_complex else (leaf,)
            pieces += [piece.ravel() for piece in both]
        return library.concatenate(pieces)

    def tree(self, vector: jax.Array) -> Any:
        leaves = list(self.held)
        for i, part in self.parts.items():
            piece = vector[part.entries]
            if part.is_complex:
                piece = lax.complex(*jnp.split(piece, 2))
            leaves[i] = piece.reshape(part.shape)
        return jax.tree.unflatten(self.structure, leaves)

    def entry(self, number: int) -> str:
        """How the vector's entry of this number is written."""
        return next(
            part.entry(number) for part in self.parts.values() if number < part.stop
        )

    def largest(self, vector: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """For each entry the magnitude of the largest in its array."""
        largest = np.zeros_like(vector)
        for part in self.parts.values():
            largest[part.entries] = _largest(vector[part.entries])
        return largest


def kind_of(array: Any) -> str:
    """The dtype and the shape of an array, or of what has both."""
    return f"{array.dtype}[{','.join(map(str, array.shape))}]"


def leaf_names(trees: Sequence[Any], names: Sequence[str]) -> list[str]:
    """Of the arrays of several pytrees: the pytree's name, and the path of the array."""
    return [
        name + jax.tree_util.keystr(path)
        for name, tree in zip(names, trees, strict=True)
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]


def argument_names(f: Callable, args: tuple) -> list[str]:
    """As the signature has them, where each argument has a name of its own."""
    try:
        bound = inspect.signature(f).bind(*args)
    except (TypeError, ValueError):
        bound = None
    if bound is None or len(bound.args) != len(bound.arguments):
        return [f"argument {i}" for i in range(len(args))]
    return list(bound.arguments)


def _largest(array: np.ndarray) -> float:
    """The magnitude of the largest entry, of those that are finite."""
    return abs(array[np.isfinite(array)]).max(initial=0)


def why(error: Exception) -> str:
    """The kind of an error, and the first line of what it says."""
    first_line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first_line}"


def _precise(leaf: Any) -> Any:
    """The array in float64, or in complex128, where it has a derivative."""
    leaf = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
    for kind, wide in (jnp.floating, np.float64), (jnp.complexfloating, np.complex128):
        if jnp.issubdtype(leaf.dtype, kind):
            leaf = np.asarray(leaf).astype(wide)
    return jax.device_put(leaf)


# --- The Jacobian, by rules and by differences ----------------------------------------


class _Flat(NamedTuple):
    """f, from one vector of real numbers to another."""

    f: Callable
    inputs: _Tree
    results: _Tree
    jit: bool

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        return self.results.vector(self.f(*self.inputs.tree(x)))

    def program(self, function: Callable) -> Callable:
        """The function, compiled where that is allowed, from and to NumPy's arrays."""
        compiled = jax.jit(function) if self.jit else function
        return lambda *given: jax.tree.map(np.asarray, compiled(*jax.device_put(given)))

    def map(self, function: Callable, given: Any) -> Any:
        """What a function gives of each along the first axis, one after the other."""
        if self.jit:
            return lax.map(function, given)
        count = len(jax.tree.leaves(given)[0])
        each = [function(jax.tree.map(itemgetter(i), given)) for i in range(count)]
        return jax.tree.map(lambda *results: jnp.stack(results), *each)

    def values(self, points: Float[Array, "k n"]) -> Float[Array, "k m"]:
        return self.map(self, points)

    def derivatives(
        self, mode: str, x: Float[Array, " n"], arriving: Float[Array, "k from"]
    ) -> Float[Array, "from+k to"]:
        """By f's rules: for each unit vector that arrives, and then for those given."""
        count, size = arriving.shape
        pull_back = jax.vjp(self, x)[1] if mode == "reverse" else None

        def answer(i):
            unit = jnp.zeros(size).at[i].set(1.0, mode="drop")
            vector = jnp.where(i < size, unit, arriving[jnp.maximum(i - size, 0)])
            if pull_back:
                return pull_back(vector)[0]
            return jax.jvp(self, (x,), (vector,))[1]

        return self.map(answer, jnp.arange(size + count))

    def by_differences(
        self,
        x: Float[Array, " n"],
        steps: Float[Array, "n levels"],
        noise: Float[Array, " m"],
    ) -> tuple[Float[Array, "n m"], Float[Array, "n m"], Int[Array, "n m"]]:
        """The transposed Jacobian by differences; how far off it may be; by which step."""
        both_ways = x[:, None, None] + jnp.stack([steps, -steps], axis=-1)

        def column(given):
            entry, steps, both_ways = given
            values = self.map(lambda moved: self(x.at[entry].set(moved)), both_ways.ravel())
            up, down = values[::2], values[1::2]
            risen = jnp.where(up == down, 0.0, up - down)  # −∞ does not move, either
            moved = both_ways[:, :1] - both_ways[:, 1:]
            return differences.best_of(risen / moved, steps, noise)

        return self.map(column, (jnp.arange(x.size), steps, both_ways))


# --- What they say of each other ------------------------------------------------------


class _Rule(NamedTuple):
    """What f's rules in one mode answer: to unit vectors, and to random ones."""

    mode: str
    to_units: Float[np.ndarray, "from to"]
    random: Float[np.ndarray, "k from"]
    to_random: Float[np.ndarray, "k to"]

    @property
    def jacobian(self) -> Float[np.ndarray, "m n"]:
        return self.to_units if self.mode == "reverse" else self.to_units.T


def _checked(
    f: Callable, args: tuple, mode: str, rtol: float, atol: float, jit: bool
) -> GradientCheck:
    names = leaf_names(args, argument_names(f, args))
    point = jax.tree.map(_precise, args)
    inputs = _Tree(point, names)
    outputs = jax.eval_shape(f, *point) if jit else f(*point)
    results = _Tree(outputs, leaf_names((outputs,), ("f",)))
    _check_kinds(inputs, results)
    flat = _Flat(f, inputs, results, jit)

    x = inputs.vector(point, np)
    largest = inputs.largest(x)
    steps = differences.steps_for(x, largest)
    values = flat.program(flat.values)
    samples = values(differences.close_to(x, largest))
    noise = differences.noise_of(samples, results.largest(abs(samples).max(axis=0)))
    transposed = flat.program(flat.by_differences)(x, steps, noise)
    slopes, errors, levels = (each.T for each in transposed)

    rules, missing = {}, []
    for each in MODES if mode == "both" else (mode,):
        try:
            rules[each] = _rule(flat, each, x)
        except (TypeError, ValueError, NotImplementedError) as error:
            if each in ("reverse", mode):
                raise
            missing.append(ModeCheck(each, None, why(error)))

    rounding = atol + noise[:, None] / steps[np.arange(x.size), levels]
    for rows in results.parts.values():
        for columns in inputs.parts.values():
            block = rows.entries, columns.entries
            largest = max(_largest(rule.jacobian[block]) for rule in rules.values())
            rounding[block] += rtol * largest

    compared = [
        (f"in {each} mode", rule.jacobian, "by differences", slopes, errors + rounding)
        for each, rule in rules.items()
    ]
    if len(rules) == 2:
        reverse, forward = (rules[each].jacobian for each in MODES)
        compared.append(("in forward mode", forward, "in reverse mode", reverse, rounding))

    def worst_of(part: _Part) -> Derivative:
        """The worst of the first comparison that fails, or else of all."""
        worst, columns = [], part.entries
        for by, found, other, expected, tolerance in compared:
            row, number = _worst(
                found[:, columns], expected[:, columns], tolerance[:, columns]
            )
            number += part.start
            derivative = Derivative(
                results.entry(row),
                inputs.entry(number),
                float(found[row, number]),
                float(expected[row, number]),
                (by, other),
                float(tolerance[row, number]),
            )
            if not derivative.ok:
                y = values(differences.around(x, steps[number], number))[:, row]
                note = differences.note_on(y, steps[number], float(noise[row]))
                if not note and math.isnan(derivative.expected):
                    note = ". f jumps there, or is not finite: check it at another point"
                return derivative._replace(note=note)
            worst.append(derivative)
        return max(worst, key=lambda each: each.error and each.error / each.tolerance)

    checks = []
    for i, (name, leaf) in enumerate(zip(names, jax.tree.leaves(args), strict=True)):
        part = inputs.parts.get(i)
        checked = (part.stop - part.start) * results.size if part else 0
        worst = worst_of(part) if part and checked else None
        dtype = str(leaf.dtype) if hasattr(leaf, "dtype") else type(leaf).__name__
        checks.append(ArgumentCheck(name, dtype, np.shape(leaf), checked, worst))
    modes = [_linear(flat, rule, rounding) for rule in rules.values()]
    return GradientCheck(tuple(checks), tuple(modes + missing))


def _rule(flat: _Flat, mode: str, x: Float[np.ndarray, " n"]) -> _Rule:
    size = (flat.results if mode == "reverse" else flat.inputs).size
    rng = np.random.default_rng(0)
    normal, sizes = rng.standard_normal(size), 2.0 ** rng.integers(-20, 21, size)
    random = np.stack(
        [abs(normal), -abs(normal), 2.0**20 * normal, 2.0**-20 * normal, sizes * normal]
    )
    answers = flat.program(partial(flat.derivatives, mode))(x, random)
    return _Rule(mode, answers[:size], random, answers[size:])


def _linear(flat: _Flat, rule: _Rule, rounding: Float[np.ndarray, "m n"]) -> ModeCheck:
    """Whether a sum of units is answered by the sum of what answers them."""
    is_reverse = rule.mode == "reverse"
    with np.errstate(invalid="ignore", over="ignore"):
        expected = rule.random @ rule.to_units
    known = np.isfinite(expected)  # what is not has been named already
    found, expected = np.where(known, rule.to_random, 0), np.where(known, expected, 0)
    tolerance = abs(rule.random) @ (rounding if is_reverse else rounding.T)
    kind, number = _worst(found, expected, tolerance)
    worst = Derivative(
        "⟨c, f⟩" if is_reverse else flat.results.entry(number),
        flat.inputs.entry(number) if is_reverse else "v",
        float(found[kind, number]),
        float(expected[kind, number]),
        (f"in {rule.mode} mode", "by linearity"),
        float(tolerance[kind, number]),
        f"; {'c' if is_reverse else 'v'} is random and {ARRIVING[kind]}",
    )
    return ModeCheck(rule.mode, worst)


def _worst(
    found: Float[np.ndarray, "m n"],
    expected: Float[np.ndarray, "m n"],
    tolerance: Float[np.ndarray, "m n"],
) -> tuple[int, int]:
    """Where the two differ most for what is tolerated."""
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(found == expected, 0, abs(found - expected))
        share = np.where(error == 0, 0, error / tolerance)
    share[~np.isfinite(error)] = np.inf
    row, column = np.unravel_index(np.argmax(share), share.shape)
    return int(row), int(column)


def _check_kinds(inputs: _Tree, results: _Tree) -> None:
    for what, tree in ("argument", inputs), ("result", results):
        if not tree.size:
            kinds = ", ".join(
                f"{name}: {kind_of(leaf)}"
                for name, leaf in zip(tree.names, tree.held, strict=True)
            )
            raise TypeError(f"f has no floating {what}; it has {kinds or 'none'}")
    for part in results.parts.values():
        if part.dtype not in (jnp.float64, jnp.complex128):
            raise TypeError(
                f"{part.name} is {part.dtype} although all floating arguments are float64: "
                f"differences of what is rounded to {part.dtype} show rounding errors; f "
                f"must compute in the precision of its arguments"
            )
    if inputs.size * results.size > MOST:
        raise ValueError(
            f"f's Jacobian has {results.size:,} × {inputs.size:,} entries; at most "
            f"{MOST:,} can be checked: take smaller arrays"
        )
