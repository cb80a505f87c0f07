"""Depthwise weight gradients as sums: every window, and what a GPU's compiler is given.

What every engine must do is in test_engines, and what the plan chooses in test_plan.
"""

import functools
from dataclasses import replace

import jax
import jax.export
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.layout import Layout
from jax.sharding import AxisType

import jaxcnn
from jaxcnn import plan
from jaxcnn.engines import reductions
from jaxcnn.layout import LAYOUTS, turned, with_channels_first
from jaxcnn.plan import Lowering
from jaxcnn.problem import Problem, describe
from jaxcnn.window import Window

# How many channels come of one, the size of x, and the window.
WINDOWS = {
    "7×7": (2, (9, 8), Window((7, 7), (1, 1), ((3, 3), (3, 3)), (1, 1))),
    "stride": (1, (11, 12), Window((5, 6), (2, 3), ((2, 2), (0, 4)), (1, 1))),
    "dilation": (2, (13, 9), Window((4, 3), (1, 2), ((3, 2), (1, 0)), (3, 2))),
    "cropped": (1, (10, 12), Window((3, 4), (1, 1), ((-2, 3), (1, -3)), (1, 1))),
    "only padding in places": (1, (3, 2), Window((2, 2), (3, 1), ((5, 4), (0, 3)), (1, 1))),
    "many taps": (1, (12, 10), Window((9, 8), (1, 1), ((4, 4), (4, 3)), (1, 1))),
    "all at once": (2, (25, 9), Window((11, 7), (2, 1), ((-1, 6), (3, 0)), (2, 1))),
    "1-D": (1, (40,), Window((31,), (1,), ((30, 0),), (1,))),
    "1-D, many taps": (3, (90,), Window((70,), (3,), ((9, 20),), (1,))),
    "3-D": (
        2,
        (4, 5, 6),
        Window((3, 2, 4), (1, 2, 1), ((1, 1), (1, 1), (0, 2)), (1, 1, 2)),
    ),
}
GROUPS = 3


def arrays_of(case, layout, dtype="float32"):
    """The problem, x and dy: small whole numbers, whose sums are exact in any order."""
    multiplier, size, window = WINDOWS[case]
    rng = np.random.default_rng(len(case))
    first = with_channels_first(layout)
    shapes = (2, GROUPS, *size), (2, GROUPS * multiplier, *window.output_size(size))
    x, dy = (rng.integers(-4, 5, shape).astype(jnp.dtype(dtype)) for shape in shapes)
    problem = Problem(window, size, layout, "reductions", groups=GROUPS)
    arrays = (turned(jnp.asarray(each), first, layout) for each in (x, dy))
    return problem, *arrays


@functools.partial(jax.jit, static_argnames="problem")
def weight_gradient(problem, x, dy):
    return plan.compute("weight_gradient", problem, x, dy)


def is_exact(problem, x, dy):
    ours = weight_gradient(problem, x, dy)
    wanted = weight_gradient(replace(problem, engine="equations"), x, dy)
    assert ours.dtype == wanted.dtype
    np.testing.assert_array_equal(ours, wanted)
    assert np.any(np.asarray(wanted))


@pytest.mark.parametrize("case", WINDOWS)
def test_every_window_has_the_sums_of_the_equations(case):
    _, size, _ = WINDOWS[case]
    for layout in LAYOUTS[len(size)]:
        is_exact(*arrays_of(case, layout))


@pytest.mark.parametrize("case", ["7×7", "many taps"])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_every_dtype_is_summed_as_the_equations_do(case, dtype):
    problem, x, dy = arrays_of(case, "NHWC", dtype)
    is_exact(problem, x, dy)
    summed = "float64" if dtype == "float64" else "float32"
    assert weight_gradient(problem, x, dy).dtype == jnp.dtype(summed)


def test_half_precisions_are_turned_in_memory_before_they_are_widened():
    problem, x, dy = arrays_of("7×7", "NHWC", "bfloat16")
    program = jax.jit(weight_gradient, static_argnums=0).lower(problem, x, dy).as_text()
    constraints = [line for line in program.splitlines() if "@LayoutConstraint" in line]
    assert len(constraints) == 2
    assert all(line.endswith("bf16>") for line in constraints)


@pytest.mark.parametrize("taps", [reductions.WRITTEN_OUT, reductions.WRITTEN_OUT + 1])
def test_the_program_grows_no_longer_where_a_loop_begins(taps):
    def equations_of(jaxpr):
        inner = jax.extend.core.jaxprs_in_params
        return sum(
            1 + sum(equations_of(each) for each in inner(equation.params))
            for equation in jaxpr.eqns
        )

    def counted(taps):
        window = Window((taps,), (1,), ((0, 0),), (1,))
        x, dy = (jax.ShapeDtypeStruct((2, 3, n), "float32") for n in (999, 1000 - taps))
        problem = Problem(window, (999,), "NCW", "reductions", groups=3)
        jaxpr = jax.make_jaxpr(functools.partial(weight_gradient, problem))(x, dy)
        return equations_of(jaxpr.jaxpr)

    if taps > reductions.WRITTEN_OUT:
        assert counted(taps) == counted(10 * taps)
    assert counted(taps) < 20 * reductions.WRITTEN_OUT


# --- Where it computes ----------------------------------------------------------------

LARGE = ((4, 6, 9, 9), (6, 1, 7, 7))


def described(lowering):
    window = Window((7, 7), (1, 1), ((3, 3),) * 2, (1, 1))
    x = jax.ShapeDtypeStruct(LARGE[0], "float32")
    problem = Problem(window, (9, 9), "NCHW", groups=6)
    return plan.chosen(describe("weight_gradient", problem, x, x), lowering).engine


@pytest.mark.parametrize("platform", ["cuda", "rocm"])
def test_it_is_for_programs_of_one_gpu_that_run_in_this_process(platform):
    assert described(Lowering(platform)) == "reductions"
    assert described(Lowering(platform, is_exported=True)) == "xla"
    assert described(Lowering(platform, is_partitioned=True)) == "xla"
    assert described(Lowering("tpu")) == "xla"


def gradients(x, w):
    y, pullback = jax.vjp(functools.partial(jaxcnn.conv2d, padding=3, groups=6), x, w)
    return pullback(y)


@pytest.mark.parametrize("platform", ["cuda", "rocm"])
def test_a_gpu_is_given_sums_and_no_convolution(platform):
    shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in LARGE]
    traced = jax.jit(gradients).trace(*shapes)
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert program.count("stablehlo.convolution") == 2
    assert program.count("stablehlo.reduce(") == 49 + 1
    assert "stablehlo.while" not in program


def test_a_program_for_a_gpu_exports_and_then_has_a_convolution():
    shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in LARGE]
    exported = jax.export.export(jax.jit(gradients), platforms=["cuda"])(*shapes)
    assert exported.mlir_module().count("stablehlo.convolution") == 3


def test_each_of_several_devices_computes_by_itself(rng):
    mesh = jax.make_mesh((4,), ("b",), axis_types=(AxisType.Auto,))
    x, w = (rng.standard_normal(shape, "float32") for shape in LARGE)

    def summed(x, w):
        convolve = functools.partial(
            jaxcnn.conv2d, padding=3, groups=6, engine="reductions"
        )
        return jax.grad(lambda w: jnp.sum(jnp.sin(convolve(x, w))))(w)

    each = jax.shard_map(
        summed, mesh=mesh, in_specs=(jax.P("b"), jax.P()), out_specs=jax.P()
    )
    # Float32: some hundred terms of order 1, added in another order.
    np.testing.assert_allclose(jax.jit(each)(x, w), summed(x, w), rtol=1e-4, atol=1e-4)


def test_it_turns_arrays_to_the_order_of_their_axes(monkeypatch):
    seen = []

    def constraint(x, layout):
        seen.append((x.shape, layout))
        return x

    monkeypatch.setattr(reductions, "with_layout_constraint", constraint)
    problem, x, dy = arrays_of("7×7", "NHWC")
    plan.compute.__wrapped__("weight_gradient", problem, x, dy)
    in_order = Layout((0, 1, 2, 3))
    assert seen == [((2, 3, 9, 8), in_order), ((2, 6, 9, 8), in_order)]
