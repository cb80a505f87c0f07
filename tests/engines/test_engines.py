"""The engines: each computes what the equations do, for every problem it does not refuse.

Tables of problems, and of engines the plan's: which engine is for which problem they say
themselves, so that a new one is tested as soon as the plan knows it. The reference is the
equations in float64, which test_equations compares with loops in NumPy.
"""

import functools
import itertools
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxcnn
from jaxcnn import equations, plan
from jaxcnn.engines import memory, pooled
from jaxcnn.layout import grouped
from jaxcnn.problem import ROLES, Problem, describe
from jaxcnn.window import Window, tap
from tests import oracles, precision

ENGINES = [engine for engine in plan.ENGINES if engine != "equations"]
FIRST = {"NWC": "NCW", "NHWC": "NCHW", "NDHWC": "NCDHW"}

# What the functions are of, and what they give: x, w and y, p for patches, and i for the
# winners.
ROLES = {
    **ROLES,
    "max_pool_gradient": ("y", "i", "x"),
    "take_winners": ("x", "i", "y"),
}
SUMS = ("forward", "weight_gradient", "input_gradient")
MAXIMA = ("max_pool", "max_pool_gradient", "take_winners")
AVERAGES = ("average_pool", "average_pool_gradient")
PATCHES = ("unfold", "fold")


def window(kernel_size, stride=1, padding=0, dilation=1):
    """A window; one number says the same of every dimension."""

    def for_each(entry):
        return entry if isinstance(entry, tuple) else (entry,) * len(kernel_size)

    pairs = padding if isinstance(padding, tuple) else ((padding, padding),)
    if len(pairs) == 1:
        pairs *= len(kernel_size)
    return Window(kernel_size, for_each(stride), pairs, for_each(dilation))


def operands_of(name, arrays):
    *roles, _ = ROLES[name]
    return [arrays[role] for role in roles]


def computed_by(engine, problem, arrays, names):
    """Those of the functions that an engine does not refuse."""
    descriptions = (describe(name, problem, *operands_of(name, arrays)) for name in names)
    return tuple(each.name for each in descriptions if not plan.refusal(engine, each))


slow = functools.partial(pytest.param, marks=pytest.mark.slow)


def every_engine(names, cases, drawn, is_slow=lambda case, engine: False):
    """Every case of a table with every engine that computes some of its functions."""
    pairs = [
        slow(case, engine) if is_slow(case, engine) else (case, engine)
        for case in cases
        for engine in ENGINES
        if computed_by(engine, *drawn(case), names)
    ]
    return pytest.mark.parametrize(("case", "engine"), pairs)


def turned(array, role, layout, other):
    """An array of a role, from one layout to another."""
    if role == "w":
        layout, other = map(oracles.weight_letters, (layout, other))
    if role == "p":
        layout, other = map(grouped, (layout, other))
    return array.transpose([layout.index(letter) for letter in other])


@functools.partial(jax.jit, static_argnames=("problem", "names"))
def results_of(names, problem, arrays):
    """What the named functions compute, by name; compiled together, which is faster."""
    return {name: plan.compute(name, problem, *operands_of(name, arrays)) for name in names}


def results_channels_first(names, problem, arrays):
    """As results_of, computed channels first; given and returned channels last."""
    last, first = problem.layout, FIRST[problem.layout]
    arrays = {role: turned(each, role, last, first) for role, each in arrays.items()}
    results = results_of(names, replace(problem, layout=first), arrays)
    return {
        name: jax.tree.map(
            functools.partial(turned, role=ROLES[name][-1], layout=first, other=last),
            jax.tree.map(np.asarray, result),
        )
        for name, result in results.items()
    }


ROUNDING = 2e-6
"""Of a float32 sum, relative to the largest of its like: it has up to 500 terms of random
sign, each of which adds an error of up to 6e-8 of a sum that is no larger than the result:
√500 · 6e-8 = 1.3e-6."""


def close(ours, wanted, rounding, rtol=0):
    """Whether all of ours are as wanted, up to a part of the largest entry (or of each)."""
    assert jax.tree.structure(ours) == jax.tree.structure(wanted)
    trees = (jax.tree.map(lambda leaf: np.asarray(leaf, "float64"), ours), wanted)
    for our, want in zip(*map(jax.tree.leaves, trees), strict=True):
        atol = rounding * np.max(np.abs(want), initial=0)
        np.testing.assert_allclose(our, want, rtol=rtol, atol=atol)


def dtypes(tree):
    return {each.dtype for each in jax.tree.leaves(tree)}


# --- Convolution ----------------------------------------------------------------------

# (layout, shape of x, C_out, groups, window), channels last.
CONVOLUTIONS = {
    "one channel, one image": ("NHWC", (1, 9, 11, 1), 5, 1, window((3, 2), padding=1)),
    "many channels": ("NHWC", (2, 6, 5, 17), 33, 1, window((3, 3), padding=1)),
    "3×3": ("NHWC", (2, 9, 8, 5), 6, 1, window((3, 3), padding=1)),
    "1×1, stride": ("NHWC", (2, 8, 5, 6), 4, 1, window((1, 1), (3, 2))),
    "as large as the image": ("NHWC", (3, 2, 4, 2), 3, 1, window((2, 4))),
    "all at once": (
        "NHWC",
        (2, 9, 13, 3),
        4,
        1,
        window((3, 2), (2, 3), ((2, 1), (-1, 3)), (1, 2)),
    ),
    "groups": (
        "NHWC",
        (2, 9, 8, 6),
        4,
        2,
        window((3, 2), (2, 1), ((2, -3), (1, -1)), (1, 2)),
    ),
    "wide groups": ("NHWC", (2, 5, 4, 18), 16, 2, window((3, 3), padding=1)),
    "many groups": ("NHWC", (2, 5, 6, 36), 18, 18, window((2, 3), (2, 1), 1)),
    "depthwise": (
        "NHWC",
        (4, 7, 9, 3),
        3,
        3,
        window((3, 2), (2, 1), ((2, 1), (-1, 3)), (1, 2)),
    ),
    "depthwise, a multiplier": ("NHWC", (3, 6, 5, 2), 6, 2, window((3, 3), padding=1)),
    "depthwise, many": ("NHWC", (2, 4, 5, 20), 20, 20, window((3, 3), padding=1)),
    "1-D": ("NWC", (2, 17, 4), 6, 1, window((3,), 2, ((1, 3),), 2)),
    "3-D": (
        "NDHWC",
        (2, 3, 4, 9, 4),
        4,
        1,
        window((2, 1, 3), (1, 2, 1), ((1, 0), (0, 1), (0, 0)), (2, 1, 1)),
    ),
    "no image": ("NHWC", (0, 6, 5, 4), 4, 1, window((3, 3))),
    "no image, depthwise": ("NHWC", (0, 6, 5, 4), 4, 4, window((3, 3))),
}


def drawn(case, dtype="float32"):
    """The problem of a convolution of the table, and x, w and y of random numbers."""
    layout, x_shape, c_out, groups, window = CONVOLUTIONS[case]
    size = x_shape[1:-1]
    shapes = {
        "x": x_shape,
        "w": (*window.kernel_size, x_shape[-1] // groups, c_out),
        "y": (x_shape[0], *oracles.output_size(size, window), c_out),
    }
    draw = np.random.default_rng(len(case)).standard_normal
    arrays = {role: draw(shape).astype(dtype) for role, shape in shapes.items()}
    return Problem(window, size, layout, groups=groups), arrays


def wide(arrays):
    return {role: each.astype("float64") for role, each in arrays.items()}


@functools.cache
def reference(case, dtype="float32"):
    """The sums by the equations in float64, of numbers that another dtype has."""
    problem, arrays = drawn(case, jnp.dtype(dtype))
    return results_of(SUMS, replace(problem, engine="equations"), wide(arrays))


# One of every kind, so that every engine of convolutions computes all three sums of one.
KINDS = ("groups", "depthwise", "3×3", "all at once")


def is_alike(case, engine):
    """Whether a case is to an engine what another is, which is always computed."""
    if engine == "xla":
        others = ("1-D", "3-D", "no image", "no image, depthwise")
        return case not in (*KINDS, *others)
    # The engines to which a case is another than all others.
    special = {
        "depthwise, a multiplier": ("unrolled",),
        "depthwise, many": ("unrolled",),
        "many channels": ("banded",),
    }
    return engine not in special.get(case, ENGINES)


@every_engine(SUMS, CONVOLUTIONS, drawn, is_alike)
def test_the_sums_are_those_of_the_equations(case, engine):
    problem, arrays = drawn(case)
    names = computed_by(engine, problem, arrays, SUMS)
    ours = results_of(names, replace(problem, engine=engine), arrays)
    assert dtypes(ours) == {jnp.dtype("float32")}
    close(ours, {name: reference(case)[name] for name in names}, ROUNDING)


def cases_of_engines():
    """For each engine of convolutions, the first kind that it computes."""
    cases = {}
    for engine in ENGINES:
        computes = (
            case for case in KINDS if computed_by(engine, *drawn(case), SUMS) == SUMS
        )
        if case := next(computes, None):
            cases[engine] = case
    return cases


CASES = cases_of_engines()


@pytest.mark.parametrize(("engine", "case"), [*CASES.items(), ("xla", "3-D")])
def test_channels_may_come_first(engine, case):
    problem, arrays = drawn(case)
    ours = results_channels_first(SUMS, replace(problem, engine=engine), arrays)
    assert ours.keys() == set(SUMS)
    close(ours, reference(case), ROUNDING)


def every_engine_and_dtype():
    """All engines with float64, and with halves: one of the two, or XLA's with both."""
    for number, engine in enumerate(CASES):
        yield "float64", engine
        for place, half in enumerate(("bfloat16", "float16")):
            is_in_turn = engine == "xla" or number % 2 == place
            yield (half, engine) if is_in_turn else slow(half, engine)


@pytest.mark.parametrize(("dtype", "engine"), [*every_engine_and_dtype()])
def test_other_dtypes_are_summed_as_the_equations_do(engine, dtype):
    case = CASES[engine]
    problem, arrays = drawn(case, jnp.dtype(dtype))
    names = computed_by(engine, problem, arrays, SUMS)
    ours = results_of(names, replace(problem, engine=engine), arrays)
    # Products of halves are exact in float32, and whoever calls rounds once.
    summed, smaller = (dtype, 2**-29) if dtype == "float64" else ("float32", 1)
    assert dtypes(ours) == {jnp.dtype(summed)}
    # XLA sums halves in float32 as well, but may round them before it hands them over.
    halves = (
        precision.of_halves(dtype, 0, convolved=0)
        if engine in ("xla", "reductions")
        else {"rtol": 0}
    )
    rounding = ROUNDING * smaller
    close(ours, reference(case, dtype), rounding, rtol=halves["rtol"])


def works_on_all_images(case, engine):
    return not hasattr(plan.ENGINES[engine], "Blocks")


@every_engine(SUMS, ["depthwise", "3×3"], drawn, works_on_all_images)
@pytest.mark.parametrize("images", [1, 4])
def test_images_may_be_worked_on_a_few_at_a_time(case, engine, images, monkeypatch):
    problem, arrays = drawn(case)
    monkeypatch.setattr(
        memory, "at_once", lambda one, how_many, limit: min(images, how_many)
    )
    # So many as four does not divide, and another batch each time, and than in all other
    # tests: compiled calls are remembered. Multiples of the table's images, whose sums are
    # multiples of its sums; by powers of two, which round nothing.
    times = [1, 2, 1] if images == 1 else [1, 2, 4, 2, 1]

    def multiples(array):
        return np.concatenate([each * array for each in times])

    arrays |= {role: multiples(arrays[role]) for role in ("x", "y")}
    names = computed_by(engine, problem, arrays, SUMS)
    ours = results_of(names, replace(problem, engine=engine), arrays)
    once = jax.tree.map(np.asarray, reference(case))
    wanted = {
        name: multiples(once[name])
        if ROLES[name][-1] != "w"
        else sum(each**2 for each in times) * once[name]
        for name in names
    }
    close(ours, wanted, ROUNDING)


@every_engine(SUMS, [*KINDS, "many groups", "wide groups"], drawn, is_alike)
def test_a_nan_stays_in_its_image_and_in_its_group(case, engine):
    problem, arrays = drawn(case)
    names = computed_by(engine, problem, arrays, SUMS)
    groups, broken = problem.groups, {role: each.copy() for role, each in arrays.items()}
    for role in ("x", "y"):
        broken[role][1, ..., 0] = np.nan  # of image 1 and group 0
    ours = results_of(names, replace(problem, engine=engine), broken)
    for name, our in jax.tree.map(np.asarray, ours).items():
        if engine == "xla" and name == "weight_gradient" and groups > 1:
            # On a CPU, XLA makes of it a dense one, of which it adds up a part times 1 and
            # the rest times 0.
            continue
        touched = np.zeros(our.shape, bool)
        whole = touched if ROLES[name][-1] == "w" else touched[1]  # what is of image 1
        whole[..., : our.shape[-1] // groups] = True
        assert np.isnan(our[touched]).any()
        wanted = np.asarray(reference(case)[name])
        close(our[~touched], wanted[~touched], ROUNDING)


# --- Accuracy -------------------------------------------------------------------------

NOISE = 3e-7  # of the largest entry: what is below is luck, not accuracy


def convolution_and_gradients(convolve, x, w, dy):
    @jax.jit
    def computed(x, w, dy):
        y, pullback = jax.vjp(convolve, x, w)
        return y, *pullback(dy)

    return computed(x, w, dy)


def errors(ours, wanted):
    """The largest error of each, relative to the largest entry."""
    trees = (jax.tree.map(lambda leaf: np.asarray(leaf, "float64"), ours), wanted)
    return [
        np.abs(our - want).max() / np.abs(want).max()
        for our, want in zip(*trees, strict=True)
    ]


@pytest.mark.parametrize("columns", [3, slow(5)])
def test_the_plans_convolutions_are_as_accurate_as_xlas(columns, rng):
    shapes = (2, 16, 16, 64), (3, columns, 64, 64), (2, 16, 19 - columns, 64)
    arrays = [rng.standard_normal(each, "float32") for each in shapes]
    conv2d = functools.partial(jaxcnn.conv2d, padding=1, layout="NHWC")
    by_equations = functools.partial(conv2d, engine="equations")
    precise = [each.astype("float64") for each in arrays]
    wanted = convolution_and_gradients(by_equations, *precise)
    xla = functools.partial(
        lax.conv_general_dilated,
        window_strides=(1, 1),
        padding=[(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    ours, theirs = (
        errors(convolution_and_gradients(each, *arrays), wanted) for each in (conv2d, xla)
    )
    for our, their in zip(ours, theirs, strict=True):
        assert our < 2 * max(their, NOISE)


# --- Some images, or rows, at a time --------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "most", "wanted"),
    [
        *[(12, 5, 4), (12, 12, 12), (12, 99, 12), (12, 0, 1), (1, 3, 1), (8, 2, 2)],
        *[(13, 12, 7), (13, 5, 5), (97, 16, 14), (22, 7, 6), (26, 3, 2)],  # filled up
    ],
)
def test_as_many_at_once_as_fit_and_waste_little(monkeypatch, batch, most, wanted):
    monkeypatch.setattr(memory, "BLOCK", most * 6 + 5)
    assert memory.at_once((2, 3), batch) == wanted
    assert memory.at_once((2, 3), batch, 13) == memory.at_once((1,), batch, 2)


def test_all_images_at_once_where_nobody_knows_how_many_there_are():
    (batch,) = jax.export.symbolic_shape("batch")
    assert memory.at_once((9**9,), batch) is batch


BLOCKS = {  # images and rows at a time
    "all": (6, 7),
    "images": (2, 7),
    "images that do not divide": (4, 7),
    "rows": (1, 7),
    "rows that do not divide": (1, 3),
    "single rows": (1, 1),
}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("low", [-1, 0, 2, 9])
@pytest.mark.parametrize("blocks", BLOCKS)
def test_blocks_are_all_the_images_and_all_their_rows(blocks, low, stride, monkeypatch):
    images, rows = BLOCKS[blocks]
    across = Window((3, 1), (stride, 1), ((low, 7 + stride - low), (0, 0)), (2, 1))
    size = across.output_size((7, 2))
    x = jnp.arange(6 * 7 * 2 * 3.0).reshape(6, 7, 2, 3)
    y = jnp.arange(6 * size[0] * 2 * 3.0).reshape(6, *size, 3) % 11

    def at_once(one, how_many, limit):
        return min(how_many, images if len(one) == 3 else rows)

    monkeypatch.setattr(memory, "at_once", at_once)
    made = memory.Blocks(x, across, "NHWC", 1)
    heights = set()

    def seen(x, window):
        taps = [tap_of(x, m, window) for m in window.offsets()]
        heights.add(taps[0].shape[:2])
        return jnp.concatenate(taps, -1)

    wanted = np.concatenate([tap_of(x, m, across) for m in across.offsets()], -1)
    ours = jax.jit(lambda x: made.put_together(seen, x))(x)
    np.testing.assert_array_equal(ours, wanted)
    assert heights == {(min(images, 6), min(rows, size[0]) if images == 1 else size[0])}

    def sums(x, y, window):
        assert y.shape[:2] in heights
        return {m[0]: (tap_of(x, m, window) * y).sum() for m in window.offsets()}

    ours = jax.jit(lambda x, y: made.sum_over(sums, x, y))(x, y)
    wanted = (
        sums(x, y, across)
        if blocks == "all"
        else {m[0]: (tap_of(x, m, across) * y).sum() for m in across.offsets()}
    )
    chex.assert_trees_all_equal(ours, wanted)  # of small whole numbers, hence exact


def test_rows_that_no_window_sees_are_not_multiplied(monkeypatch):
    across = window((2, 1), (3, 1))
    x = jnp.ones((1, 13, 2, 3)).at[:, 11:].set(jnp.inf)
    y = jnp.ones((1, 4, 2, 3))
    monkeypatch.setattr(memory, "at_once", lambda one, how_many, limit: min(how_many, 3))
    made = memory.Blocks(x, across, "NHWC", 1)

    def sums(x, y, window):
        return [(tap_of(x, m, window) * y).sum() for m in window.offsets()]

    assert made.is_cut
    assert made.sum_over(sums, x, y) == [24, 24]


def test_an_image_in_two_blocks_counts_once_even_if_infinite(monkeypatch):
    across = window((2, 1), (3, 1))
    x = jnp.ones((5, 13, 2, 3)).at[2].set(jnp.inf)
    y = jnp.ones((5, 4, 2, 3))
    monkeypatch.setattr(memory, "at_once", lambda one, how_many, limit: min(how_many, 3))
    made = memory.Blocks(x, across, "NHWC", 1, cuts=False)

    def sums(x, y, window):
        return [(tap_of(x, m, window) * y).sum() for m in window.offsets()]

    assert not made.divides_batch
    assert made.sum_over(sums, x, y) == [np.inf, np.inf]
    assert made.sum_over(sums, x.at[2].set(1), y) == [5 * 24, 5 * 24]


def tap_of(x, m, window):
    return tap(x, m, window, "NHWC")


# --- Pooling --------------------------------------------------------------------------

# (layout, shape of x, window), channels last.
POOLINGS = {
    "2×2": ("NHWC", (2, 6, 9, 3), window((2, 2), 2)),
    "overlapping": ("NHWC", (2, 7, 5, 3), window((3, 2), (2, 1), ((1, 0), (1, 1)))),
    "all at once": (
        "NHWC",
        (2, 9, 11, 2),
        window((2, 3), (1, 2), ((2, 0), (-1, 3)), (3, 2)),
    ),
    "many taps": ("NHWC", (1, 9, 10, 2), window((5, 4), (3, 2), ((3, 1), (-1, 3)), (2, 1))),
    "the whole image": ("NHWC", (2, 4, 5, 3), window((4, 5))),
    "large windows, side by side": ("NHWC", (2, 18, 9, 3), window((9, 9), 9)),
    "the whole of a large image": ("NHWC", (2, 9, 8, 3), window((9, 8), (1, 3))),
    "large windows, overlapping": (
        "NHWC",
        (2, 13, 14, 3),
        window((9, 10), (2, 1), ((8, 3), (-1, 6))),
    ),
    "large windows, all at once": (
        "NHWC",
        (1, 21, 30, 2),
        window((5, 14), (1, 3), ((11, 4), (5, -2)), (3, 2)),
    ),
    "1-D": ("NWC", (2, 9, 3), window((3,), 2, 1)),
    "1-D, long": ("NWC", (2, 250, 3), window((131,), 1, ((9, 130),))),
    "1-D, long, stride": ("NWC", (2, 331, 2), window((100,), 6, ((99, -3),))),
    "1-D, long, stride and dilation": ("NWC", (1, 400, 2), window((70,), 4, 7, 6)),
    "3-D": (
        "NDHWC",
        (1, 3, 4, 5, 2),
        window((2, 2, 1), (1, 2, 2), ((0, 1), (0, 1), (0, 0))),
    ),
}


def numbers(rng, shape):
    return rng.standard_normal(shape, np.float32)


def drawn_for_pooling(case, draw=numbers):
    """The problem of a pooling of the table, x and y, and the winners of x."""
    layout, x_shape, window = POOLINGS[case]
    size = x_shape[1:-1]
    y_shape = (x_shape[0], *oracles.output_size(size, window), x_shape[-1])
    rng = np.random.default_rng(len(case))
    arrays = {"x": draw(rng, x_shape), "y": draw(rng, y_shape)}
    arrays["i"] = np.zeros(y_shape, equations.winner_dtype(window))
    arrays["p"] = draw(rng, (*y_shape[:-1], window.number_of_taps, y_shape[-1]))
    return Problem(window, size, layout), arrays


def peculiar(rng, shape):
    """Numbers full of ties, with NaNs, and with −∞ that padding must not win against."""
    return rng.choice(np.float32([-np.inf, -2, -1, -1, 0, 1, 1, np.nan]), shape)


@functools.partial(jax.jit, static_argnames="problem")
def winners_of(x, problem):
    """Who wins by the equations: −1 where a window sees nothing but padding."""
    return plan.compute("max_pool", replace(problem, engine="equations"), x)[1]


def maxima_are_equal(engine, problem, arrays, computed=results_of):
    loops = replace(problem, engine="equations")
    arrays["i"] = np.asarray(winners_of(arrays["x"], problem))
    names = computed_by(engine, problem, arrays, MAXIMA)
    wanted = computed(names, loops, arrays)
    ours = computed(names, replace(problem, engine=engine), arrays)
    chex.assert_trees_all_equal_shapes_and_dtypes(ours, wanted)
    jax.tree.map(np.testing.assert_array_equal, ours, wanted)


@every_engine(MAXIMA, POOLINGS, drawn_for_pooling)
def test_maxima_and_their_winners_are_those_of_the_equations(case, engine):
    problem, arrays = drawn_for_pooling(case, peculiar)
    # Sums of small whole numbers are exact.
    maxima_are_equal(engine, problem, {**arrays, "y": np.nan_to_num(arrays["y"], neginf=3)})


@every_engine(MAXIMA, ["overlapping"], drawn_for_pooling)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16", "int32"])
def test_maxima_of_other_dtypes_are_those_of_the_equations(case, engine, dtype):
    def draw(rng, shape):
        return rng.integers(-9, 9, shape).astype(jnp.dtype(dtype))

    maxima_are_equal(engine, *drawn_for_pooling(case, draw))


# Where a position's outputs come from is what max_pool_gradient has tables of: windows for
# which they are short, long, full of holes or all but empty.
HARD_WINDOWS = {
    # (size of x, window)
    "stride of one": ((9,), window((3,))),
    "stride below the kernel": ((14,), window((5,), 2, ((2, 1),))),
    "stride beyond the kernel": ((17,), window((2,), 5, ((1, 3),))),
    "stride beyond all": ((4,), window((2,), 7)),
    "stride divides the dilation": ((21,), window((3,), 2, ((1, 4),), 4)),
    "dilation divides the stride": ((22,), window((4,), 6, ((5, 0),), 2)),
    "dilation and stride without a common divisor": ((23,), window((4,), 3, ((2, 5),), 4)),
    "dilation beyond the stride": ((25,), window((2,), 3, 0, 11)),
    "a rest that nobody sees": ((19,), window((2,), 4, ((0, -2),))),
    "cropped before": ((15,), window((3,), 2, ((-4, 1),))),
    "cropped after": ((15,), window((3,), 2, ((1, -5),))),
    "cropped to one": ((9,), window((1,), 3, ((-4, -4),))),
    "nothing but padding in places": ((3,), window((2,), 1, ((4, 5),))),
    "nothing but padding": ((2,), window((2,), 2, ((-3, 6),))),
    "each dimension another": (
        (9, 12),
        window((3, 2), (2, 5), ((1, -2), (-1, 4)), (3, 1)),
    ),
    "2-D, dilation": ((11, 10), window((2, 3), (3, 2), ((3, 2), (0, 1)), (4, 3))),
    "2-D, gaps": ((10, 13), window((2, 1), (3, 4), ((0, 1), (2, -3)))),
    "3-D": (
        (5, 7, 6),
        window((2, 3, 2), (1, 2, 3), ((1, 0), (-1, 2), (2, 2)), (2, 1, 3)),
    ),
    "many taps": ((19, 15), window((9, 11), (1, 2), ((8, 5), (3, 9)))),
    "many taps, dilation": ((40, 61), window((11, 15), (2, 3), ((3, 5), (-4, 6)), (3, 4))),
    "1-D, many taps": ((150,), window((140,), 1, ((60, 40),))),
    "3-D, many taps": ((9, 7, 8), window((5, 4, 5), (1, 2, 1), ((1, 0), (0, 1), (2, -1)))),
    "3-D, gaps": ((4, 5, 7), window((1, 2, 2), (3, 3, 4), ((-1, 0), (0, 2), (1, 1)))),
}


@pytest.mark.parametrize("case", HARD_WINDOWS)
def test_the_gradient_of_a_maximum_goes_to_the_winner_and_nowhere_else(case, rng):
    size, window = HARD_WINDOWS[case]
    out = oracles.output_size(size, window)
    layout = "N" + "DHW"[-len(size) :] + "C"
    # Winners as if they had been drawn, nobody among them, and some of them in padding.
    winner = rng.integers(-1, window.number_of_taps, (2, *out, 3))
    dy = rng.integers(-9, 9, winner.shape).astype("float32")
    wanted = np.zeros((2, *size, 3))
    for b, *i, c in oracles.positions(winner.shape):
        number = winner[(b, *i, c)]
        if number >= 0:
            m = np.unravel_index(number, window.kernel_size)
            k = oracles.met_at(i, m, window)
            if oracles.is_inside(k, size):
                wanted[(b, *k, c)] += dy[(b, *i, c)]
    gradient = functools.partial(
        pooled.max_pool_gradient, window=window, input_size=size, layout=layout
    )
    winner = winner.astype(equations.winner_dtype(window))
    np.testing.assert_array_equal(jax.jit(gradient)(dy, winner), wanted)


DIVISIONS = {
    "padding counts": lambda padding: {},
    "or not": lambda padding: {"counted": ((0, 0),) * len(padding)},
    "some of it does": lambda padding: {
        "counted": tuple((low, min(high, 1)) for low, high in padding)
    },
    "by a number": lambda padding: {"divisor": 3},
}


def averages_are_close(engine, problem, arrays, computed=results_of):
    names = computed_by(engine, problem, arrays, AVERAGES)
    ours = computed(names, replace(problem, engine=engine), arrays)
    assert dtypes(ours) == {jnp.dtype("float32")}
    wanted = computed(names, replace(problem, engine="equations"), wide(arrays))
    close(ours, wanted, ROUNDING)


IN_TURN = dict(zip(POOLINGS, itertools.cycle(DIVISIONS)))
"""Another division for each window, beside the most intricate, which leaves padding out;
the window that has everything has all of them."""


@pytest.mark.parametrize(
    ("case", "engine", "divide"),
    [
        (case, engine, divide)
        if case == "all at once" or divide in ("or not", IN_TURN[case])
        else slow(case, engine, divide)
        for case in POOLINGS
        for engine in ENGINES
        for divide in DIVISIONS
        if computed_by(engine, *drawn_for_pooling(case), AVERAGES)
    ],
)
def test_averages_are_those_of_the_equations(case, engine, divide):
    problem, arrays = drawn_for_pooling(case)
    options = DIVISIONS[divide](problem.window.padding)
    averages_are_close(engine, replace(problem, **options), arrays)


@every_engine(MAXIMA + AVERAGES, ["all at once"], drawn_for_pooling)
def test_pooled_channels_may_come_first(case, engine):
    problem, arrays = drawn_for_pooling(case)
    # Sums of whole numbers are exact.
    whole = {role: np.round(3 * each) for role, each in arrays.items()}
    maxima_are_equal(engine, problem, whole, results_channels_first)
    averages_are_close(engine, problem, arrays, results_channels_first)


@every_engine(AVERAGES, ["all at once"], drawn_for_pooling)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_averages_of_halves_are_summed_in_float32(case, engine, dtype):
    def draw(rng, shape):
        return numbers(rng, shape).astype(jnp.dtype(dtype))

    averages_are_close(engine, *drawn_for_pooling(case, draw))


# --- Patches --------------------------------------------------------------------------


def patches_are_close(engine, problem, arrays, computed=results_of):
    names = computed_by(engine, problem, arrays, PATCHES)
    ours = computed(names, replace(problem, engine=engine), arrays)
    wanted = computed(names, replace(problem, engine="equations"), wide(arrays))
    close(ours, wanted, ROUNDING)


def has_a_large_window(case, engine):
    return POOLINGS[case][-1].number_of_taps > 64


@every_engine(PATCHES, POOLINGS, drawn_for_pooling, has_a_large_window)
def test_patches_are_those_of_the_equations(case, engine):
    patches_are_close(engine, *drawn_for_pooling(case))


@every_engine(PATCHES, ["all at once"], drawn_for_pooling)
def test_the_channels_of_patches_may_come_first(case, engine):
    patches_are_close(engine, *drawn_for_pooling(case), results_channels_first)


@every_engine(PATCHES, ["all at once"], drawn_for_pooling)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_patches_of_halves_are_added_in_float32(case, engine, dtype):
    def draw(rng, shape):
        return numbers(rng, shape).astype(jnp.dtype(dtype))

    problem, arrays = drawn_for_pooling(case, draw)
    ours = results_of(PATCHES, replace(problem, engine=engine), arrays)
    assert ours["fold"].dtype == jnp.dtype("float32")
    patches_are_close(engine, problem, arrays)


def test_an_image_may_lose_its_first_pixels(rng):
    """A case that jaxlib 0.10.2 computes from memory beside the image."""
    X = np.float32(rng.standard_normal((2, 12, 11, 4)))
    W = np.float32(rng.standard_normal((3, 3, 4, 4)))
    window = {"stride": 2, "padding": ((-2, 1), (0, 1)), "layout": "NHWC"}
    by_loops = jaxcnn.conv2d(X, W, engine="equations", **window)
    for engine in ("canonical", "xla"):
        y = jaxcnn.conv2d(X, W, engine=engine, **window)
        # Float32: 36 terms of order 1, added in another order.
        chex.assert_trees_all_close(y, by_loops, rtol=1e-5, atol=1e-5)
