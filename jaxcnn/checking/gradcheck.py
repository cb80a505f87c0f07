"""Is a gradient right? Every entry of the Jacobian, against differences, in float64."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

MODES = ("reverse", "forward")
MOST = 10**8  # entries of a Jacobian, 800 MB
STEP = 2.0**-17  # near the cube root of the rounding error, where central ones are best
NOISE = 8.0  # how many rounding errors of the largest result a difference may have


class Derivative(NamedTuple):
    """One entry of the Jacobian, computed twice.

    Attributes:
      output, input: the entries, as they are written in Python: ``"f[0, 3]"``, ``"w[1]"``.
      rule: what JAX's differentiation gives, by whatever rules f has.
      difference: (f(x + h) − f(x − h)) / 2h.
      tolerance: by how much they may differ.
      kink: the slopes on the left and on the right, where f has none; else None.
    """

    output: str
    input: str
    rule: float
    difference: float
    tolerance: float
    kink: tuple[float, float] | None

    @property
    def error(self) -> float:
        error = abs(self.rule - self.difference)
        return math.inf if math.isnan(error) else error

    def __str__(self) -> str:
        text = (
            f"∂ {self.output} / ∂ {self.input} is {self.rule:.10g} by its rule and "
            f"{self.difference:.10g} by differences: they differ by {self.error:.2g}, "
            f"tolerated is {self.tolerance:.2g}"
        )
        if self.kink is None:
            return text
        left, right = self.kink
        return (
            f"{text}. f has a kink there, with a slope of {left:.4g} on its left and of "
            f"{right:.4g} on its right: check it at another point"
        )


@dataclass(frozen=True)
class ArgumentCheck:
    """What was found for one argument, or for one array of it.

    Attributes:
      name: as f's signature has it, and where in it the array is.
      dtype, shape: as it was given.
      checked: how many derivatives were compared: entries of f times entries of it; 0
        for integers and booleans, which have none.
      worst: the one with the largest error; None where none was compared.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    checked: int
    worst: Derivative | None

    @property
    def ok(self) -> bool:
        return self.worst is None or self.worst.error <= self.worst.tolerance

    def __str__(self) -> str:
        text = f"{self.name}: {kind_of(self)}"
        if self.worst is None:
            return f"– {text} has no derivatives"
        if not self.ok:
            return f"✗ {text} {self.worst}"
        return (
            f"✓ {text} {self.checked:,} derivatives, off by at most "
            f"{self.worst.error:.1e} (tolerated: {self.worst.tolerance:.1e})"
        )


@dataclass(frozen=True)
class GradientCheck:
    """What :func:`gradcheck` found; prints as a line for each argument.

    Attributes:
      arguments: what was found for each, in order.
    """

    arguments: tuple[ArgumentCheck, ...]

    @property
    def ok(self) -> bool:
        """Whether all derivatives are right."""
        return all(each.ok for each in self.arguments)

    def __str__(self) -> str:
        return "\n".join(map(str, self.arguments))


def gradcheck(
    f: Callable,
    *args: Any,
    mode: str = "reverse",
    rtol: float = 1e-6,
    atol: float = 1e-8,
    jit: bool = True,
    raises: bool = True,
) -> GradientCheck:
    r"""Check every derivative of a function against central differences, in float64.

    .. math::

        J_{ij} = \frac{\partial f_i}{\partial x_j} \stackrel{?}{=}
            \frac{f_i(x + h e_j) - f_i(x - h e_j)}{2 h}

    All of J is computed: by reverse mode, as :func:`jax.grad` and :func:`jax.vjp` use the
    rules of f, a row for each entry of f; and by differences, a column for each entry of
    x. A check along one random direction, such as ``jax.test_util.check_grads``, finds
    that something is wrong; this says which derivative it is.

    Args:
      f: any function that JAX differentiates, not only those of jaxcnn, from arrays, or
        pytrees of them, to arrays or pytrees of them.
      args: where to check. Floating arrays are taken as float64, whatever they are and
        whether or not ``jax_enable_x64`` is set. Complex ones are complex128, and their
        real and imaginary parts are checked as if they were arguments of their own, and
        so are those of complex results. Integers, booleans and keys are held, and what f
        gives of them is ignored.
      mode: ``"reverse"``, or ``"forward"`` to check :func:`jax.jvp` and :func:`jax.jacfwd`.
      rtol, atol: an error may be ``atol + rtol · max |J|``, over all of one argument's
        derivatives, and beyond that what rounding adds to a difference,
        ``8 ε max |f| / h``.
      jit: whether f may be compiled; pass False where it takes decisions by the values of
        its arguments.
      raises: whether to raise if a derivative is wrong.

    Returns:
      A :class:`GradientCheck`: for each argument the worst derivative, where it is, its
      value by f's rules and by differences, and the tolerance.

    Raises:
      AssertionError: when a derivative is wrong, with the text of that result.
      TypeError: when f has no floating argument or no floating result, or where that is
        not float64 though the arguments are, so that differences show rounding alone.
      ValueError: when ``mode`` is another, or J has more than 100 million entries.

    Cost: f's gradient once for each entry of f, and f itself twice for each entry of its
    arguments; 16 bytes for each of J's entries. Small arrays show as much as large ones.

    Source: Griewank and Walther, *Evaluating Derivatives* (2008), chapter 1.

    >>> import jax.numpy as jnp, jaxcnn
    >>> x, w = jnp.linspace(-1, 1, 25).reshape(1, 5, 5), jnp.ones((2, 1, 3, 3))
    >>> print(jaxcnn.gradcheck(jaxcnn.conv2d, x, w))  # doctest: +ELLIPSIS
    ✓ x: float32[1,5,5] 450 derivatives, off by at most ...
    ✓ w: float32[2,1,3,3] 324 derivatives, off by at most ...
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; it must be 'reverse' or 'forward'")
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        return _checked(f, args, mode, rtol, atol, jit, raises)


# --- From arrays to one vector of real numbers, and back ------------------------------


class _Part(NamedTuple):
    """An array whose entries are some of a vector's."""

    name: str
    shape: tuple[int, ...]
    dtype: Any
    is_complex: bool
    start: int
    stop: int

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

    def vector(self, tree: Any) -> jax.Array:
        leaves = jax.tree.leaves(tree)
        pieces = []
        for i, part in self.parts.items():
            leaf = leaves[i]
            both = (leaf.real, leaf.imag) if part.is_complex else (leaf,)
            pieces += [piece.ravel() for piece in both]
        return jnp.concatenate(pieces)

    def tree(self, vector: jax.Array) -> Any:
        leaves = list(self.held)
        for i, part in self.parts.items():
            piece = vector[part.start : part.stop]
            if part.is_complex:
                piece = lax.complex(*jnp.split(piece, 2))
            leaves[i] = piece.reshape(part.shape)
        return jax.tree.unflatten(self.structure, leaves)

    def entry(self, number: int) -> str:
        """How the vector's entry of this number is written."""
        return next(
            part.entry(number) for part in self.parts.values() if number < part.stop
        )


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


def _precise(leaf: Any) -> Any:
    """The array in float64, or in complex128, where it has a derivative."""
    array = leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
    for kind, wide in (jnp.floating, jnp.float64), (jnp.complexfloating, jnp.complex128):
        if jnp.issubdtype(array.dtype, kind):
            return array.astype(wide)
    return array


# --- The Jacobian, twice --------------------------------------------------------------


class _Flat(NamedTuple):
    """f, from one vector of real numbers to another."""

    f: Callable
    inputs: _Tree
    results: _Tree
    jit: bool

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.results.vector(self.f(*self.inputs.tree(x)))

    def compiled(self, function: Callable) -> Callable:
        return jax.jit(function) if self.jit else function

    def stacked(self, function: Callable, count: int) -> jax.Array:
        """What a function of a number gives for each, one after the other."""
        if self.jit:
            return lax.map(function, jnp.arange(count))
        return jnp.stack([function(i) for i in range(count)])

    def jacobian(self, mode: str, x: jax.Array) -> jax.Array:
        """By f's rules."""
        m, n = self.results.size, self.inputs.size
        if mode == "reverse":
            pull_back = jax.vjp(self, x)[1]
            return self.stacked(lambda i: pull_back(_unit(m, i))[0], m)
        return self.stacked(lambda i: jax.jvp(self, (x,), (_unit(n, i),))[1], n).T

    def slopes(self, x: jax.Array, steps: jax.Array) -> jax.Array:
        """The Jacobian by central differences."""
        n = self.inputs.size

        def slope(i):
            step = steps[i] * _unit(n, i)
            return (self(x + step) - self(x - step)) / (2 * steps[i])

        return self.stacked(slope, n).T

    def kink(
        self, x: jax.Array, step: jax.Array, row: int, column: int
    ) -> tuple[float, float] | None:
        """The slopes on both sides, if they are two."""
        moved = step * _unit(self.inputs.size, column)
        y = self(x)
        left, right = (
            float(each[row] / step) for each in (y - self(x - moved), self(x + moved) - y)
        )
        differ = abs(right - left) > 1e-3 * (abs(left) + abs(right))
        return (left, right) if differ else None


def _checked(
    f: Callable,
    args: tuple,
    mode: str,
    rtol: float,
    atol: float,
    jit: bool,
    raises: bool,
) -> GradientCheck:
    names = leaf_names(args, argument_names(f, args))
    point = jax.tree.map(_precise, args)
    inputs = _Tree(point, names)
    outputs = jax.eval_shape(f, *point) if jit else f(*point)
    results = _Tree(outputs, leaf_names((outputs,), ("f",)))
    _check_kinds(inputs, results)
    flat = _Flat(f, inputs, results, jit)

    x = inputs.vector(point)
    # A power of two: x + h and x − h are then rounded alike, or not at all.
    steps = STEP * 2 ** jnp.ceil(jnp.log2(jnp.maximum(abs(x), 1)))
    rule = np.asarray(flat.compiled(partial(flat.jacobian, mode))(x))
    slopes = np.asarray(flat.compiled(flat.slopes)(x, steps))
    largest = float(abs(flat(x)).max())
    noise = NOISE * np.finfo(np.float64).eps * largest / np.asarray(steps)

    def worst_of(part: _Part) -> Derivative:
        columns = slice(part.start, part.stop)
        row, column, tolerance = _worst(
            rule[:, columns], slopes[:, columns], noise[columns], rtol, atol
        )
        number = part.start + column
        derivative = Derivative(
            results.entry(row),
            inputs.entry(number),
            float(rule[row, number]),
            float(slopes[row, number]),
            tolerance,
            None,
        )
        if derivative.error <= tolerance:
            return derivative
        return derivative._replace(kink=flat.kink(x, steps[number], row, number))

    checks = []
    for i, (name, leaf) in enumerate(zip(names, jax.tree.leaves(args), strict=True)):
        part = inputs.parts.get(i)
        size = part.stop - part.start if part else 0
        worst = worst_of(part) if part and size else None
        dtype = str(leaf.dtype) if hasattr(leaf, "dtype") else type(leaf).__name__
        checked = size * results.size
        checks.append(ArgumentCheck(name, dtype, np.shape(leaf), checked, worst))
    check = GradientCheck(tuple(checks))
    if raises and not check.ok:
        raise AssertionError(f"a derivative is wrong:\n{check}")
    return check


def _worst(
    rule: Float[np.ndarray, "m n"],
    slopes: Float[np.ndarray, "m n"],
    noise: Float[np.ndarray, " n"],
    rtol: float,
    atol: float,
) -> tuple[int, int, float]:
    """Where the error is largest for its tolerance, and that tolerance."""
    largest = np.abs(slopes[np.isfinite(slopes)]).max(initial=0)
    tolerance = np.broadcast_to(atol + rtol * largest + noise, slopes.shape)
    with np.errstate(invalid="ignore"):
        error = np.nan_to_num(np.abs(rule - slopes), nan=np.inf)
    row, column = np.unravel_index(np.argmax(error / tolerance), error.shape)
    return int(row), int(column), float(tolerance[row, column])


def _check_kinds(inputs: _Tree, results: _Tree) -> None:
    for what, tree in ("argument", inputs), ("result", results):
        if not tree.parts:
            kinds = ", ".join(
                f"{name}: {leaf.dtype}"
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


def _unit(size: int, number: int | jax.Array) -> jax.Array:
    return jnp.zeros(size).at[number].set(1.0)
