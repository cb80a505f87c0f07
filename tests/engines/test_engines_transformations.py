"""The engines inside of what JAX makes of a program: jit, scan, vmap, gradients, jvp.

Each engine by its name, through the public functions, in float32, against the equations in
float64. The rules that all engines share are what test_transformations proves.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn import plan
from jaxcnn.engines.loops.library import at_hand
from tests.engines import test_engines
from tests.engines.test_engines import CASES, ENGINES, drawn

TIMES = 3

every_engine = pytest.mark.parametrize("engine", CASES)


def close(ours, wanted, engine, times=1):
    test_engines.close(ours, wanted, times * test_engines.ROUNDING)


def conv2d_of(case, engine, **options):
    problem, _ = drawn(case)
    window = problem.window
    return functools.partial(
        jaxcnn.conv2d,
        stride=window.stride,
        padding=window.padding,
        dilation=window.dilation,
        groups=problem.groups,
        layout=problem.layout,
        engine=engine,
        **options,
    )


def operands_of(case, dtype):
    """x, w, b and dy, TIMES of each; float32 numbers, whatever the dtype."""
    rng = np.random.default_rng(1)
    _, arrays = drawn(case)
    shapes = [arrays[role].shape for role in "xwy"]
    shapes.insert(2, shapes[1][-1:])
    draw = functools.partial(rng.standard_normal, dtype="float32")
    return [draw((TIMES, *shape)).astype(dtype) for shape in shapes]


def value_and_pullback(function):
    def computed(*operands_and_dy):
        *operands, dy = operands_and_dy
        y, pullback = jax.vjp(function, *operands)
        return y, pullback(dy)

    return computed


def slopes(function, *operands_and_dy):
    """The gradients of a nonlinear loss, and those of their length."""
    *operands, dy = operands_and_dy

    def gradients(*operands):
        def loss(*operands):
            return jnp.vdot(jnp.sin(function(*operands)), dy)

        return jax.grad(loss, range(len(operands)))(*operands)

    def length(*operands):
        return sum(jnp.vdot(each, each) for each in gradients(*operands))

    return gradients(*operands), jax.grad(length, range(len(operands)))(*operands)


def at_each_time(function, in_axes, operands):
    """Calls, one after the other, whose results are stacked."""

    def at(n):
        pairs = zip(operands, in_axes, strict=True)
        return [each if axis is None else each[n] for each, axis in pairs]

    results = [function(*at(n)) for n in range(TIMES)]
    return jax.tree.map(lambda *each: np.stack(each), *results)


# What the equations compute of a case, in float64, is the same for all engines.


@functools.cache
def calls(case):
    """Values and gradients, of one call after the other."""
    function = jax.jit(value_and_pullback(conv2d_of(case, "equations")))
    return at_each_time(function, (0, 0, 0, 0), operands_of(case, "float64"))


@functools.cache
def loops(case):
    return jax.jit(conv2d_of(case, "equations"))


@functools.cache
def slopes_of(case, engine, dtype):
    operands = [each[0] for each in operands_of(case, dtype)]
    return jax.jit(functools.partial(slopes, conv2d_of(case, engine)))(*operands)


@functools.cache
def jvp_of(case, engine, dtype):
    convolution = conv2d_of(case, engine, derivatives="autodiff")
    operands = [operand[0] for operand in operands_of(case, dtype)[:3]]
    return jax.jit(lambda *each: jax.jvp(convolution, each, each))(*operands)


@every_engine
def test_a_scan_computes_what_is_computed_outside(engine):
    case = CASES[engine]
    operands = operands_of(case, "float32")
    function = value_and_pullback(conv2d_of(case, engine))

    def step(_, at_this_time):
        return None, function(*at_this_time)

    _, scanned = jax.jit(lambda *operands: jax.lax.scan(step, None, operands))(*operands)
    close(scanned, calls(case), engine)


@every_engine
@pytest.mark.parametrize("in_axes", [(0, None, None), (None, 0, None)], ids=["x", "w"])
def test_vmap_of_one_operand_is_every_call_by_itself(engine, in_axes):
    case = CASES[engine]
    ours, wanted = (
        [
            each if axis == 0 else each[0]
            for each, axis in zip(operands_of(case, dtype), in_axes, strict=False)
        ]
        for dtype in ("float32", "float64")
    )
    mapped = jax.jit(jax.vmap(conv2d_of(case, engine), in_axes))
    close(mapped(*ours), at_each_time(loops(case), in_axes, wanted), engine)


@every_engine
def test_vmap_of_all_operands_is_every_call_by_itself_nans_and_all(engine):
    case = CASES[engine]
    x, *others = operands_of(case, "float32")
    mapped = jax.jit(jax.vmap(value_and_pullback(conv2d_of(case, engine))))
    wanted = calls(case)
    close(mapped(x, *others), wanted, engine)
    x[1] = np.nan
    y, (dx, dw, _) = jax.tree.map(np.asarray, mapped(x, *others))
    if engine == "xla":
        dw = wanted[1][1]  # see test_a_nan_stays_in_its_image_and_in_its_group
    else:
        assert np.isnan(dw[1]).all()
    assert np.isnan(y[1]).any()
    for our, want in zip((y, dx, dw), (wanted[0], *wanted[1][:2]), strict=True):
        close(our[::2], want[::2], engine)


@every_engine
def test_gradients_of_gradients_are_those_of_the_equations(engine):
    case = CASES[engine]
    ours, wanted = (
        slopes_of(case, *each) for each in ((engine, "float32"), ("equations", "float64"))
    )
    # Sums of sums: twice the error of one, and as much for the sine of one.
    close(ours, wanted, engine, times=5)


@every_engine
def test_autodiff_goes_through_a_named_engine_or_is_refused(engine):
    case = CASES[engine]
    if engine == "loops":
        with pytest.raises(ValueError, match="'loops', which JAX cannot differentiate"):
            jvp_of(case, engine, "float32")
        return
    close(jvp_of(case, engine, "float32"), jvp_of(case, "equations", "float64"), engine)


# --- Pooling --------------------------------------------------------------------------

POOLINGS = {"max_pool": jaxcnn.max_pool2d, "average_pool": jaxcnn.avg_pool2d}
OPTIONS = {
    "kernel_size": (3, 2),
    "stride": (2, 1),
    "padding": ((1, 0), (0, 1)),
    "layout": "NHWC",
}


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize(
    "engine",
    [
        engine
        for engine in ENGINES
        if hasattr(plan.ENGINES[engine], "max_pool")
        and (engine != "loops" or at_hand() is None)
    ],
)
def test_poolings_go_through_everything(engine, name, rng):
    xs, dys = (rng.standard_normal((TIMES, 2, *size, 3)) for size in ((5, 4), (2, 4)))

    def everything(engine, dtype):
        pool = functools.partial(POOLINGS[name], engine=engine, **OPTIONS)
        function = value_and_pullback(pool)

        def computed(xs, dys):
            _, scanned = jax.lax.scan(
                lambda _, each: (None, function(*each)), None, (xs, dys)
            )
            by = "equations" if engine == "loops" else engine  # JAX differentiates no calls
            plain = functools.partial(pool, engine=by, derivatives="autodiff")
            return (
                scanned,
                jax.vmap(function)(xs, dys),
                slopes(pool, xs[0], dys[0]),
                jax.jvp(plain, (xs[0],), (xs[1],)),
            )

        return jax.jit(computed)(xs.astype(dtype), dys.astype(dtype))

    xs, dys = (each.astype("float32") for each in (xs, dys))
    ours, wanted = everything(engine, "float32"), everything("equations", "float64")
    close(ours, wanted, engine, times=5)
    close(ours[1], ours[0], engine)
    one_by_one = jax.jit(
        value_and_pullback(functools.partial(POOLINGS[name], engine=engine, **OPTIONS))
    )
    close(at_each_time(one_by_one, (0, 0), (xs, dys)), ours[0], engine)


def test_autodiff_through_large_windows_with_gaps_is_refused(rng):
    x = rng.standard_normal((2, 20, 18, 3))
    known = {"layout": "NHWC", "dilation": 2, "derivatives": "autodiff"}

    def gradient(engine, kernel_size):
        pool = functools.partial(jaxcnn.max_pool2d, stride=1, engine=engine, **known)
        return jax.grad(lambda x: jnp.sum(jnp.sin(pool(x, kernel_size))))(x)

    with pytest.raises(ValueError, match="'pooled', which JAX cannot differentiate here"):
        gradient("pooled", 9)
    close(gradient("auto", 9), gradient("equations", 9), "equations")
    close(gradient("pooled", 8), gradient("equations", 8), "pooled")
