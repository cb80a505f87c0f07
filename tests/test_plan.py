"""The plan: every function has an engine, and every problem is compiled once."""

import dataclasses
import functools
import inspect
import re
import sys
import traceback
import types
from pathlib import Path

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding

import jaxcnn
from jaxcnn import equations, plan
from jaxcnn.engines.loops.library import at_hand
from jaxcnn.plan import PLATFORMS, Lowering
from jaxcnn.problem import CONVOLUTIONS, ROLES, STATIC_ARGUMENTS, Problem, describe
from jaxcnn.window import Window

WINDOW = Window((2, 2), (1, 1), ((0, 0), (0, 0)), (1, 1))
PROBLEM = Problem(WINDOW, (3, 3), "NCHW")


@pytest.mark.parametrize("name", STATIC_ARGUMENTS)
@pytest.mark.parametrize("engine", plan.ENGINES)
def test_an_engines_function_wants_what_the_plan_tells_it(name, engine):
    if engine == "equations":
        assert hasattr(equations, name)
    function = getattr(plan.ENGINES[engine], name, None)
    if function is None:
        return
    # What the plan tells it is all that it wants to know besides its arrays.
    wanted = inspect.signature(function).parameters.values()
    keywords = {each.name for each in wanted if each.kind is each.KEYWORD_ONLY}
    if getattr(plan.ENGINES[engine], "ADDS_BIAS", False):
        keywords -= {"bias"}
    assert set(STATIC_ARGUMENTS[name]) == keywords


def test_the_equations_are_an_engine():
    assert plan.ENGINES["equations"] is equations
    assert "auto" not in plan.ENGINES


def test_a_problem_is_hashable_and_equal_to_its_like():
    like = Problem(dataclasses.replace(WINDOW), (3, 3), "NCHW")
    assert like is not PROBLEM
    assert len({like, PROBLEM, dataclasses.replace(like, groups=2)}) == 2


def test_a_problem_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROBLEM.groups = 2


@pytest.fixture
def counting_engine(monkeypatch, request):
    """An engine that counts how often its functions are traced; another in each test."""
    counts = dict.fromkeys(STATIC_ARGUMENTS, 0)

    def counted(name, *operands, **known):
        counts[name] += 1
        return getattr(equations, name)(*operands, **known)

    engine = {name: functools.partial(counted, name) for name in counts}
    monkeypatch.setitem(plan.ENGINES, request.node.name, types.SimpleNamespace(**engine))
    return request.node.name, counts


def test_repeated_eager_calls_compile_once(counting_engine):
    engine, counts = counting_engine
    x, w = np.ones((1, 2, 3, 4)), np.ones((2, 2, 2, 2))
    for number in range(3):
        jaxcnn.conv2d(x + number, w, engine=engine)
        jaxcnn.max_pool2d(x + number, [2, 1], engine=engine)
    assert counts == {**dict.fromkeys(counts, 0), "forward": 1, "max_pool": 1}


def test_what_eager_calls_compiled_is_forgotten_with_all_else(counting_engine):
    engine, counts = counting_engine
    x, w = np.ones((1, 2, 3, 4)), np.ones((2, 2, 2, 2))
    jaxcnn.conv2d(x, w, engine=engine)
    jax.clear_caches()
    jaxcnn.conv2d(x, w, engine=engine)
    assert counts["forward"] == 2


def test_another_problem_is_compiled_anew(counting_engine):
    engine, counts = counting_engine
    x, w = np.ones((1, 2, 3, 4)), np.ones((2, 2, 2, 2))
    jaxcnn.conv2d(x, w, engine=engine)
    jaxcnn.conv2d(x, w, engine=engine, stride=2)
    jaxcnn.conv2d(x.astype("float32"), w.astype("float32"), engine=engine)
    assert counts["forward"] == 3


# --- Who computes what ----------------------------------------------------------------

# What is asked (the shape of x, that of w, and options; or a pooling's window), all of it
# channels last; the engine on a CPU (or those of forward, weight and input gradient), and
# for a convolution the one on accelerators.
DENSE = ("canonical", "patches", "canonical")
PLANS = {
    "one input channel": ((2, 8, 8, 1), (5, 5, 1, 32), {}, "banded"),
    "1×1": ((2, 8, 8, 64), (1, 1, 64, 64), {}, "patches"),
    "1×1, stride": (
        (2, 8, 8, 64),
        (1, 1, 64, 64),
        {"stride": 2},
        ("patches", "patches", "banded"),
    ),
    "3×3": ((2, 8, 8, 64), (3, 3, 64, 64), {}, DENSE),
    "3×3, fewer channels": (
        (2, 8, 8, 16),
        (3, 3, 16, 64),
        {},
        ("canonical", "patches", "patches"),
    ),
    "3×3, few channels": ((2, 8, 8, 8), (3, 3, 8, 64), {}, "patches"),
    "3×3, dilation": (
        (2, 8, 8, 64),
        (3, 3, 64, 64),
        {"dilation": 2},
        ("canonical", "patches", "patches"),
    ),
    "many channels, stride": (
        (2, 8, 8, 64),
        (3, 3, 64, 64),
        {"stride": 2},
        ("canonical", "patches", "banded"),
    ),
    "a large kernel": ((2, 8, 8, 64), (7, 7, 64, 64), {}, "patches"),
    "a large kernel, colours": (
        (2, 8, 8, 3),
        (7, 7, 3, 64),
        {"stride": 2},
        ("canonical", "patches", "banded"),
    ),
    "a large kernel, few outputs": ((2, 8, 8, 3), (7, 7, 3, 8), {}, "banded"),
    "wide groups": ((2, 8, 8, 64), (3, 3, 32, 64), {"groups": 2}, DENSE),
    "groups": ((2, 8, 8, 64), (3, 3, 16, 64), {"groups": 4}, DENSE),
    "many groups": ((2, 8, 8, 64), (3, 3, 2, 64), {"groups": 32}, "banded"),
    "depthwise": ((2, 8, 8, 64), (3, 3, 1, 128), {"groups": 64}, "unrolled"),
    "depthwise, huge": ((2, 9, 9, 64), (9, 9, 1, 64), {"groups": 64}, "unrolled"),
    "depthwise, 5×5": ((2, 9, 9, 64), (5, 5, 1, 64), {"groups": 64}, "unrolled"),
    "depthwise, 7×7": ((2, 9, 9, 64), (7, 7, 1, 64), {"groups": 64}, "unrolled"),
    "one channel to many": (
        (2, 8, 8, 4),
        (3, 3, 1, 100),
        {"groups": 4},
        "banded",
    ),
}
SUMMED_ON_GPUS = ("depthwise, huge", "depthwise, 7×7")
"""Their weight gradients are sums there, and no convolutions."""
HAS_LOOPS = at_hand() is None
ACCELERATORS = [Lowering(platform) for platform in PLATFORMS if platform != "cpu"]
POOLINGS = {
    "max": (jaxcnn.max_pool2d, (2, 12, 12, 3), 3, "pooled"),
    "max, huge": (jaxcnn.max_pool2d, (2, 12, 12, 3), 9, "pooled"),
    "average": (jaxcnn.avg_pool2d, (2, 12, 12, 3), 3, "pooled", "xla"),
    "average, of all": (jaxcnn.avg_pool2d, (2, 12, 12, 3), 9, "pooled"),
    "average, monstrous": (jaxcnn.avg_pool2d, (1, 80, 80, 1), 33, "pooled", "xla"),
}


def described(x, w, options, dtype="float32"):
    """The descriptions of the three sums of a convolution of the table."""
    stride, groups = options.get("stride", 1), options.get("groups", 1)
    dilation = (options.get("dilation", 1),) * 2
    window = Window(w[:2], (stride,) * 2, ((0, 0),) * 2, dilation)
    y = (x[0], *window.output_size(x[1:3]), w[-1])
    shapes = dict(zip("xwy", (x, w, y), strict=True))
    arrays = {role: jax.ShapeDtypeStruct(each, dtype) for role, each in shapes.items()}
    problem = Problem(window, x[1:3], "NHWC", groups=groups)
    return [
        describe(name, problem, *(arrays[role] for role in ROLES[name][:2]))
        for name in CONVOLUTIONS
    ]


@pytest.mark.parametrize("case", PLANS)
def test_a_convolution_and_its_gradients_have_their_engine(case):
    x, w, options, on_cpu = PLANS[case]
    on_cpu = on_cpu if isinstance(on_cpu, tuple) else (on_cpu,) * 3
    for description, engine in zip(described(x, w, options), on_cpu, strict=True):
        channels = (w[2], w[3] // options.get("groups", 1))
        assert (description.c_in, description.c_out) == channels
        assert plan.chosen(description).engine == engine
        for lowering in ACCELERATORS:
            is_summed = lowering.is_for_gpu and case in SUMMED_ON_GPUS
            wanted = "xla"
            if is_summed and description.name == "weight_gradient":
                wanted = "reductions"
            assert plan.chosen(description, lowering).engine == wanted
    # XLA has no fast convolutions for float64, and products all the same.
    for description in described(x, w, options, "float64"):
        assert plan.chosen(description).engine in ("banded", "patches", "unrolled")


def test_a_kernel_of_more_rows_and_columns_than_are_written_out_is_xlas():
    huge = (2, 99, 99, 4), (65, 65, 4, 4), {}
    for dtype, engine in (("float32", "canonical"), ("float64", "equations")):
        assert {plan.chosen(each).engine for each in described(*huge, dtype)} == {engine}


@pytest.mark.parametrize("case", POOLINGS)
def test_a_pooling_and_its_gradient_have_their_engine(case):
    pool, x, size, engine, *elsewhere = POOLINGS[case]
    problem = Problem(
        Window((size,) * 2, (size,) * 2, ((0, 0),) * 2, (1, 1)), x[1:3], "NHWC"
    )
    kind = "max" if pool is jaxcnn.max_pool2d else "average"
    for name in (each for each in STATIC_ARGUMENTS if each.startswith(kind)):
        for dtype in ("float32", "float64", "bfloat16"):
            description = describe(name, problem, jax.ShapeDtypeStruct(x, dtype))
            assert plan.chosen(description).engine == engine
            for lowering in ACCELERATORS:
                on_accelerator = plan.chosen(description, lowering).engine
                assert [on_accelerator] == (elsewhere or [engine])


@pytest.mark.parametrize(
    ("size", "stride", "padding", "engines"),
    [
        (2, 1, 1, ("xla", "xla")),
        (2, 1, 0, ("pooled", "xla")),
        (2, 1, -1, ("pooled", "pooled")),
        (2, 2, 1, ("pooled", "pooled")),
        (3, 1, 1, ("pooled", "pooled")),
    ],
)
def test_averages_of_few_taps_that_overlap_are_xlas(size, stride, padding, engines):
    window = Window((size,) * 2, (stride,) * 2, ((padding,) * 2,) * 2, (1, 1))
    problem = Problem(window, (8, 8), "NHWC")
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), "float32")
    names = ("average_pool", "average_pool_gradient")
    chosen = [plan.chosen(describe(name, problem, x)).engine for name in names]
    assert tuple(chosen) == engines


@pytest.mark.parametrize(
    ("dtype", "engine"),
    [
        ("float32", "pooled"),
        ("bfloat16", "loops"),
        ("float16", "loops"),
        ("float64", "loops"),
    ],
)
def test_beside_loops_pools_side_by_side_are_xlas_only_in_float32(dtype, engine):
    window = Window((2, 2), (2, 2), ((0, 0),) * 2, (1, 1))
    problem = Problem(window, (8, 8), "NHWC")
    x, winner = (jax.ShapeDtypeStruct((2, 8, 8, 3), each) for each in (dtype, "int8"))
    for name, operands in (("max_pool", (x,)), ("max_pool_gradient", (x, winner))):
        description = describe(name, problem, *operands)
        assert plan.chosen(description, Lowering("cpu", has_loops=True)).engine == engine


@pytest.mark.parametrize("name", STATIC_ARGUMENTS)
def test_where_there_is_nothing_to_compute_the_equations_do_it(name):
    of_images, of_patches = (2, 8, 8, 1), (2, 8, 8, 1, 1)
    shapes = {"x": of_images, "y": of_images, "w": (1, 1, 1, 1), "p": of_patches}
    arrays = {role: jax.ShapeDtypeStruct(each, "float32") for role, each in shapes.items()}
    problem = Problem(Window((1, 1), (1, 1), ((0, 0),) * 2, (1, 1)), (8, 8), "NHWC")
    *roles, _ = ROLES[name]
    for role in set(roles):
        nothing = jax.ShapeDtypeStruct((0, *shapes[role][1:]), "float32")
        operands = [{**arrays, role: nothing}[each] for each in roles]
        empty = describe(name, problem, *operands)
        assert empty.is_empty
        assert plan.chosen(empty).engine == "equations"
        for engine in set(plan.ENGINES) - {"equations", "xla"}:
            assert plan.refusal(engine, empty) == "wants arrays with entries"
    full = describe(name, problem, *(arrays[each] for each in roles))
    assert not full.is_empty
    assert plan.chosen(full).engine != "equations"


@pytest.mark.parametrize("loops", ["1", "0"], ids=["loops", "none"])
def test_what_does_not_see_a_marked_column_does_not_change(monkeypatch, rng, loops):
    monkeypatch.setenv("JAXCNN_LOOPS", loops)
    jax.clear_caches()
    x, dy, w = (
        jnp.asarray(rng.standard_normal(shape), "float32")
        for shape in ((1, 16, 16, 64), (1, 16, 16, 64), (3, 3, 64, 64))
    )

    @jax.jit
    def sums(x, dy):
        y, gradient = jax.vjp(lambda x: jaxcnn.conv2d(x, w, padding=1, layout="NHWC"), x)
        return y[:, :, :14], *(dx[:, :, :14] for dx in gradient(dy))

    marked = (each.at[:, :, 15].set(1e6) for each in (x, dy))
    # The same sums in the same order: equal, or to within rounding of numbers of order 30.
    chex.assert_trees_all_close(sums(*marked), sums(x, dy), atol=1e-4)


def test_a_rule_whose_engine_refuses_is_passed_over(monkeypatch):
    monkeypatch.setattr(plan.ENGINES["banded"], "refuses", lambda description: "is ill")
    for description in described(*PLANS["one input channel"][:3]):
        assert plan.refusal("banded", description) == "is ill"
        instead = "canonical" if description.name == "forward" else "patches"
        assert plan.chosen(description).engine == instead


@functools.cache
def convolution_of(case):
    """A convolution of the table and its gradients: a function that all platforms share."""
    options = PLANS[case][2]
    convolve = functools.partial(jaxcnn.conv2d, layout="NHWC", **options)

    @jax.jit
    def with_gradient(x, w):
        y, pullback = jax.vjp(convolve, x, w)
        return y, pullback(y)

    return with_gradient


def lowered(platform, function, *shapes):
    """The program that JAX hands to a platform's compiler."""
    operands = (jax.ShapeDtypeStruct(each, jnp.float32) for each in shapes)
    return jax.export.export(function, platforms=[platform])(*operands).mlir_module()


@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
@pytest.mark.parametrize("case", PLANS)
def test_accelerators_are_given_convolutions(platform, case):
    x, w, _, on_cpu = PLANS[case]
    program = lowered(platform, convolution_of(case), x, w)
    convolutions = program.count("stablehlo.convolution")
    if platform != "cpu":
        assert convolutions == 3
        assert "stablehlo.dot_general" not in program
        assert "stablehlo.while" not in program
    elif on_cpu in ("banded", "unrolled"):
        assert convolutions == 0
        assert ("stablehlo.dot_general" in program) == (on_cpu == "banded")


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_a_gpu_is_given_no_convolution_of_four_dimensions(platform):
    def gradients(x, w):
        def convolve(x, w):
            return jax.lax.conv_general_dilated(x, w, (1,) * 4, "SAME")

        y, pullback = jax.vjp(convolve, x, w)
        return pullback(y)

    with jaxcnn.patched_jax():
        program = lowered(platform, jax.jit(gradients), (2, 3, *[4] * 4), (5, 3, *[2] * 4))
    assert program.count("stablehlo.convolution") == (3 if platform == "tpu" else 0)


@pytest.mark.parametrize("engine", ["xla", "canonical"])
@pytest.mark.parametrize("platform", ["cuda", "rocm"])
def test_what_a_gpu_gets_wrong_is_refused_there_alone(platform, engine):
    each = {
        n: describe(
            "forward",
            Problem(
                Window((2,) * n, (1,) * n, ((0, 0),) * n, (1,) * n),
                (4,) * n,
                "N" + "abcd"[:n] + "C",
                engine,
            ),
            jax.ShapeDtypeStruct((1, *[4] * n, 8), jnp.float32),
            jax.ShapeDtypeStruct((*[2] * n, 8, 8), jnp.float32),
        )
        for n in (3, 4)
    }
    assert plan.chosen(each[3], Lowering(platform)).engine == engine
    for elsewhere in "cpu", "tpu":
        assert plan.chosen(each[4], Lowering(elsewhere)).engine == engine
    with pytest.raises(ValueError, match=f"engine is '{engine}', which calls XLA's conv.*"):
        plan.chosen(each[4], Lowering(platform))


# Convolutions whose engines compute what others of the table have them compute, too.
ALIKE = (
    "1×1",
    "1×1, stride",
    "5×5",
    "3×3, fewer channels",
    "a large kernel",
    "wide groups",
)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow if case in ALIKE else ())
        for case in (*PLANS, *POOLINGS)
    ],
)
def test_the_batch_may_be_symbolic(case, rng):
    if case in PLANS:
        x, *others, options, _ = PLANS[case]
        function = functools.partial(jaxcnn.conv2d, layout="NHWC", **options)
    else:
        pool, x, size, *_ = POOLINGS[case]
        function, others = functools.partial(pool, kernel_size=size, layout="NHWC"), []

    @jax.jit
    def with_gradient(*operands):
        y, pullback = jax.vjp(function, *operands)
        return y, pullback(y)

    (batch,) = jax.export.symbolic_shape("batch")
    operands = [rng.standard_normal(each, "float32") for each in (x, *others)]
    shapes = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in operands]
    shapes[0] = jax.ShapeDtypeStruct((batch, *x[1:]), shapes[0].dtype)
    exported = jax.export.export(with_gradient)(*shapes)
    # float32 sums of some thousand terms, in another order.
    chex.assert_trees_all_close(
        exported.call(*operands), with_gradient(*operands), rtol=1e-4, atol=1e-2
    )


def activations_in(program, shapes):
    """Of arrays that have the axes of these shapes: in which order they are in memory.

    For each array that the program keeps, its axes from the outermost to the innermost.
    What is inside of a fusion is never in memory, and what goes in and comes out is as it
    must be.
    """
    *body, _ = program[program.index("ENTRY") :].split("  ROOT ")
    arrays = re.findall(r"= \w+\[([\d,]+)\]\{([\d,]+)[^}]*\} (\w+)\(", body[0])
    for sizes, minor_first, operation in arrays:
        axes = [int(size) for size in sizes.split(",")]
        order = [int(axis) for axis in minor_first.split(",")]
        is_kept = operation not in ("parameter", "bitcast")
        if is_kept and any(sorted(axes) == sorted(shape) for shape in shapes):
            yield [axes[axis] for axis in reversed(order)]


@pytest.mark.parametrize(
    ("channels", "most_in_gradient"), [(1, 1), (40, 2)], ids=["banded", "canonical"]
)
def test_channels_first_networks_keep_their_activations_channels_last(
    channels, most_in_gradient
):
    # Every size is another, so that an axis is known by its size.
    x = (4, channels, 32, 32)
    ws = [(24, channels, 3, 3), (40, 24, 3, 3)]
    activations = [(4, 24, 32, 32), (4, 24, 16, 16), (4, 40, 16, 16)]

    def network(ws, x):
        for w in ws:
            x = jaxcnn.max_pool2d(jaxcnn.relu(jaxcnn.conv2d(x, w, padding=1)), 2)
        return x

    def gradient(ws, x):
        return jax.grad(lambda ws: jnp.vdot(network(ws, x), network(ws, x)))(ws)

    # In the gradient, XLA keeps some the other way round, for the loops that read them.
    for function, most in ((network, 0), (gradient, most_in_gradient)):
        shapes = jax.tree.map(
            lambda shape: jax.ShapeDtypeStruct(shape, "float32"),
            (ws, x),
            is_leaf=lambda leaf: isinstance(leaf, tuple) and isinstance(leaf[0], int),
        )
        program = jax.jit(function).lower(*shapes).compile().as_text()
        kept = list(activations_in(program, activations))
        assert kept
        turned = [each for each in kept if each[-1] in (32, 16)]
        assert len(turned) <= most, turned


# --- What the plan is told ------------------------------------------------------------

X, W = np.ones((8, 3, 3, 1)), np.ones((2, 2, 1, 1))


@pytest.fixture
def convolve():
    """A function that is new in every test: JAX remembers how others were lowered."""
    return lambda x, w: jaxcnn.conv2d(x, w, layout="NHWC")


@pytest.fixture
def told(monkeypatch):
    """The lowerings of which the plan is told, in order."""
    lowerings, chosen = [], plan.chosen

    def telling(description, lowering):
        lowerings.append(lowering)
        return chosen(description, lowering)

    monkeypatch.setattr(plan, "chosen", telling)
    return lowerings


def mesh_of(axis_type, **sizes):
    return jax.make_mesh((*sizes.values(),), (*sizes,), (axis_type,) * len(sizes))


def test_the_plan_is_told_the_platform(told, convolve):
    traced = jax.jit(convolve).trace(X, W)
    assert told == []  # which is only known when the program is lowered
    for platform in PLATFORMS:
        traced.lower(lowering_platforms=(platform,))
        assert told.pop() == Lowering(platform, has_loops=HAS_LOOPS)
        assert told == []


def test_the_plan_is_told_the_platform_outside_of_jit(told, convolve):
    jax.clear_caches()
    convolve(X, W)
    assert told == [Lowering("cpu", has_loops=HAS_LOOPS)]


def test_the_plan_is_told_of_an_export_once_for_each_platform(told, convolve):
    jax.export.export(jax.jit(convolve), platforms=PLATFORMS)(X, W)
    wanted = {"is_exported": True, "has_loops": HAS_LOOPS}
    assert told == [Lowering(platform, **wanted) for platform in PLATFORMS]


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("devices", [1, 8])
def test_the_plan_is_told_of_several_devices(told, convolve, axis_type, devices):
    mesh = mesh_of(axis_type, b=devices)
    with jax.set_mesh(mesh):
        x = jax.device_put(X, NamedSharding(mesh, jax.P("b")))
        jax.jit(convolve).lower(x, W)
    assert told == [Lowering("cpu", is_partitioned=devices > 1, has_loops=HAS_LOOPS)]


@pytest.mark.parametrize("manual", ["b", "c", "bc"])
def test_inside_shard_map_only_axes_left_to_xla_are_several_devices(told, convolve, manual):
    mesh = mesh_of(AxisType.Auto, b=4, c=2)
    of_each = jax.shard_map(
        convolve,
        mesh=mesh,
        in_specs=(jax.P(tuple(manual)), jax.P()),
        out_specs=jax.P(tuple(manual)),
        axis_names={*manual},
    )
    jax.jit(of_each).lower(X, W)
    is_partitioned = manual != "bc"
    assert told == [Lowering("cpu", is_partitioned=is_partitioned, has_loops=HAS_LOOPS)]


@pytest.mark.parametrize(
    ("on_cpu", "elsewhere"), [("seventeen", "seventeen"), ("seventeen", "eighteen")]
)
def test_one_program_holds_the_engines_of_all_its_platforms(
    monkeypatch, convolve, on_cpu, elsewhere
):
    numbers = {"seventeen": 17, "eighteen": 18}
    for name, number in numbers.items():

        def forward(x, w, number=number, **known):
            return jnp.full((8, 2, 2, 1), float(number))

        monkeypatch.setitem(plan.ENGINES, name, types.SimpleNamespace(forward=forward))
    for choices, engine in (("ON_CPU", on_cpu), ("ON_ACCELERATORS", elsewhere)):
        monkeypatch.setattr(plan, choices, [plan.Choice(engine, lambda d: True, "")])
    exported = jax.export.export(jax.jit(convolve), platforms=PLATFORMS)(X, W)
    assert np.all(np.asarray(exported.call(X, W)) == numbers[on_cpu])
    program = exported.mlir_module()
    found = {number for number in numbers.values() if f"dense<{number:e}>" in program}
    assert found == {numbers[on_cpu], numbers[elsewhere]}
    # … and asks where it runs only if that matters.
    assert ("stablehlo.case" in program) == (on_cpu != elsewhere)


# --- On the way to an engine ----------------------------------------------------------


@pytest.mark.parametrize("engine", ["canonical", "xla"])
def test_few_frames_of_jaxcnn_lie_between_a_call_and_lax(engine, monkeypatch):
    package, frames = str(Path(jaxcnn.__file__).parent), []
    module = plan.ENGINES[engine]
    of_jax = module.conv_general_dilated

    def counting(*operands, **known):
        calls = traceback.walk_stack(sys._getframe(1))
        codes = [frame.f_code for frame, _ in calls]
        # The functions that check types in the tests are other files'.
        frames.append([c.co_name for c in codes if c.co_filename.startswith(package)])
        return of_jax(*operands, **known)

    monkeypatch.setattr(module, "conv_general_dilated", counting)
    jax.clear_caches()
    jaxcnn.conv2d(X, W, layout="NHWC", engine=engine)
    ((*inner, outermost),) = frames
    assert outermost == "conv2d"
    assert "forward" in inner
    assert len(frames[0]) <= 8, frames


# --- An engine by its name ------------------------------------------------------------


def test_the_named_engine_computes_and_no_other(monkeypatch):
    def forward(x, w, **known):
        return jnp.full((1, 2, 2, 1), 7.0)

    monkeypatch.setitem(plan.ENGINES, "seven", types.SimpleNamespace(forward=forward))
    x, w = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
    for options, wanted in (
        ({"engine": "seven"}, 7),
        ({"engine": "equations"}, 4),
        ({}, 4),
    ):
        assert np.all(np.asarray(jaxcnn.conv2d(x, w, **options)) == wanted)


CALLS = {
    "dense": lambda engine: jaxcnn.conv2d(
        np.ones((1, 2, 4, 4)), np.ones((2, 2, 2, 2)), engine=engine
    ),
    "groups": lambda engine: jaxcnn.conv2d(
        np.ones((1, 4, 4, 4)), np.ones((4, 2, 2, 2)), groups=2, engine=engine
    ),
    "huge": lambda engine: jaxcnn.conv2d(
        np.ones((1, 2, 3, 127)), np.ones((2, 2, 2, 127)), engine=engine
    ),
    "empty": lambda engine: jaxcnn.conv2d(
        np.ones((0, 2, 4, 4)), np.ones((2, 2, 2, 2)), engine=engine
    ),
    "max": lambda engine: jaxcnn.max_pool2d(np.ones((1, 1, 4, 4)), 2, engine=engine),
    "average": lambda engine: jaxcnn.avg_pool2d(np.ones((1, 1, 4, 4)), 2, engine=engine),
}
REFUSED = {
    "canonical": ("max", "does not compute max pools"),
    "xla": ("max", "does not compute max pools"),
    "banded": ("empty", "wants arrays with entries"),
    "unrolled": ("dense", "computes depthwise convolutions only"),
    "pooled": ("dense", "does not compute forwards"),
    "patches": ("huge", "writes out no more than 128 rows and columns of taps"),
    "reductions": ("groups", "computes depthwise convolutions only"),
}


@pytest.mark.parametrize("engine", REFUSED)
def test_what_an_engine_refuses_is_said_and_what_to_use_instead(engine):
    call, reason = REFUSED[engine]
    with pytest.raises(ValueError, match=f"engine is '{engine}', which {reason}") as caught:
        CALLS[call](engine)
    advice = str(caught.value).partition(": use ")[2]
    assert advice.startswith("'auto', or one of 'equations'")
    for name in advice.replace("'", "").replace("or one of ", "").split(", "):
        CALLS[call](name)  # … which is true


def test_a_call_whose_gradient_alone_is_refused_computes_until_there_is_one(monkeypatch):
    forward = types.SimpleNamespace(forward=equations.forward)
    monkeypatch.setitem(plan.ENGINES, "one way", forward)

    def loss(w):
        return jaxcnn.conv2d(jnp.ones((1, 1, 4, 4)), w, engine="one way").sum()

    assert loss(jnp.ones((1, 1, 2, 2))) == 36
    with pytest.raises(ValueError, match="'one way', which does not compute"):
        jax.grad(loss)(jnp.ones((1, 1, 2, 2)))


def test_an_engine_that_wants_channels_last_is_given_them(monkeypatch):
    seen = []

    def forward(x, w, *, layout, **known):
        seen.append((x.shape, w.shape, layout))
        return equations.forward(x, w, layout=layout, **known)

    engine = types.SimpleNamespace(forward=forward)
    monkeypatch.setitem(plan.ENGINES, "last", engine)
    x, w = np.ones((1, 2, 4, 5)), np.ones((3, 2, 2, 2))
    assert jaxcnn.conv2d(x, w, engine="last").shape == (1, 3, 3, 4)
    monkeypatch.setitem(
        plan.ENGINES, "any", types.SimpleNamespace(forward=forward, ANY_LAYOUT=True)
    )
    assert jaxcnn.conv2d(x, w, engine="any").shape == (1, 3, 3, 4)
    assert seen == [
        ((1, 4, 5, 2), (2, 2, 2, 3), "NHWC"),
        ((1, 2, 4, 5), (3, 2, 2, 2), "NCHW"),
    ]


@pytest.mark.parametrize(
    ("arguments", "exception", "told"),
    [
        (
            (jaxcnn.conv2d, np.ones((1, 1, 4, 4)), (1, 1, 3, 3)),
            TypeError,
            "a ndarray; each",
        ),
        ((jaxcnn.relu, (2, 3)), ValueError, "makes no sum over windows"),
        ((jnp.sin, (2, 3)), ValueError, "makes no sum over windows"),
    ],
)
def test_only_sums_of_arrays_with_shapes_are_explained(arguments, exception, told):
    with pytest.raises(exception, match=told):
        inspect.unwrap(jaxcnn.explain)(*arguments)  # whose types are not checked first
