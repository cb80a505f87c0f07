"""The benchmark: what it compares with is right, and so is what it makes of the times."""

import json
from dataclasses import asdict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from experiments import benchmark
from experiments.benchmarking import cases as benchmark_cases
from experiments.benchmarking.cases import CALLS, CLASSES, NETWORKS, Call, Layer, Pool
from experiments.benchmarking.chart import chart_of
from experiments.benchmarking.eager import FUNCTIONS, gradient, measure_call
from experiments.benchmarking.figures import (
    fastest,
    geometric_mean,
    ratios,
    summaries,
)
from experiments.benchmarking.layers import (
    has_loops,
    in_layout,
    measure_layer,
)
from experiments.benchmarking.networks import (
    BY_LAX,
    CONTESTANTS,
    MODELS,
    forward_of,
    image_batch,
    initial_state,
    joined,
    loss_of,
    model_of,
    parted,
    training_step,
)
from experiments.benchmarking.reference import convolution, relative_error
from experiments.benchmarking.tables import (
    cost_table,
    eager_table,
    scan_table,
    time_table,
)
from experiments.benchmarking.timing import Contestant, Measurement, race
from experiments.benchmarking.torch_process import TorchWorker
from experiments.peers import lax_operations
from experiments.peers.jax_gradients import value_and_gradients
from experiments.run.command import ClaimError
from tests.models.parameters import drawn

SMALL = Layer(2, 4, 6, (7, 8), 3, stride=2, padding=1, groups=2)


@pytest.mark.parametrize(
    ("layout", "layer"),
    [
        ("NHWC", Layer(2, 3, 5, (6, 7), 3, padding=1)),
        ("NHWC", Layer(2, 3, 5, (9, 8), 3, stride=2, padding=1)),
        ("NHWC", Layer(2, 3, 5, (9, 8), 3, padding=2, dilation=2)),
        ("NHWC", Layer(2, 6, 6, (7, 8), 5, padding=2, groups=6)),
        ("NHWC", Layer(2, 3, 5, (8, 8), 1, stride=2)),
        ("NHWC", SMALL),
        ("NCHW", SMALL),
    ],
    ids=lambda each: each.name if isinstance(each, Layer) else each,
)
def test_the_reference_agrees_with_lax_in_float64(layout, layer, rng):
    arrays = {
        name: rng.standard_normal(shape) for name, shape in layer.shapes("NHWC").items()
    }
    expected = convolution(**arrays, layer=layer)

    def function(x, w, b):
        known = {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}
        return lax_operations.conv(x, w, b, **known, groups=layer.groups, layout=layout)

    given = [jnp.asarray(in_layout(array, name, layout)) for name, array in arrays.items()]
    assert [array.shape for array in given] == list(layer.shapes(layout).values())
    *operands, dy = given
    computed = value_and_gradients(function, operands, dy)[:3]
    for name, found in zip(("y", "dx", "dw"), computed, strict=True):
        assert relative_error(found, in_layout(expected[name], name, layout)) < 1e-13


def test_the_error_is_relative_to_the_largest_entry():
    assert relative_error([1.0, -4.0], np.array([1.5, -5.0])) == 0.2


# --- Networks -------------------------------------------------------------------------

SIZES = {"LeNet-5": 8, "MNIST CNN": 8, "VGG": 16, "ResNet-20": 6, "MobileNet": 6}
COMPILE_QUICKLY = {"xla_backend_optimization_level": 0}


@pytest.fixture
def small(request, rng):
    """A model, its parameters and a batch of three images, all in float64."""
    name, layout = request.param
    channels = NETWORKS[name][2]
    model = model_of(name, layout, SIZES[name], channels)
    parameters = drawn(model, rng)
    images = rng.standard_normal((3, SIZES[name], SIZES[name], channels))
    images = jnp.asarray(in_layout(images, "x", layout))
    return name, model, parameters, images


# Of the large ones in the other layout, tests.models.test_layouts shows that they are the
# same networks.
LARGE = ("VGG", "ResNet-20", "MobileNet")
EVERY_NETWORK = pytest.mark.parametrize(
    "small",
    [
        pytest.param(
            (name, layout),
            id=f"{name} in {layout}",
            marks=[pytest.mark.slow] if name in LARGE and layout == "NCHW" else [],
        )
        for name in NETWORKS
        for layout in ("NHWC", "NCHW")
    ],
    indirect=True,
)


@EVERY_NETWORK
def test_a_network_over_lax_has_the_logits_and_gradients_of_jaxcnns(small, rng):
    name, model, parameters, images = small
    weights = rng.standard_normal((len(images), CLASSES))

    def computed(contestant):
        forward = forward_of(name, contestant, model)

        def product(trained, statistics):
            logits, advanced = forward(joined(trained, statistics), images)
            return jnp.vdot(logits, weights), (logits, advanced)

        gradient = jax.grad(product, has_aux=True)
        compiled = jax.jit(gradient, compiler_options=COMPILE_QUICKLY)
        gradients, (logits, advanced) = compiled(*parted(parameters))
        return logits, gradients, advanced

    ours, theirs = map(computed, CONTESTANTS)
    assert 0.1 < np.std(theirs[0]) < 10, "the parameters are of a sensible size"
    assert all(map(np.any, jax.tree.leaves(theirs[1]))), "no gradient is zero"
    for found, expected in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        assert relative_error(found, np.asarray(expected)) < 1e-10
    if ours[2] is not None:
        before, after = (jax.tree.leaves(parted(each)[1]) for each in (parameters, ours[2]))
        assert not any(map(np.allclose, before, after)), "the running statistics move"


def test_a_step_trains_what_is_trained_and_carries_the_statistics():
    model = model_of("MobileNet", "NHWC")
    state = jax.eval_shape(partial(initial_state, model))
    assert jax.tree.structure(state.velocity) == jax.tree.structure(state.parameters)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(part)) for part in state]
    assert sizes[0] == sizes[1] == number_of_parameters("MobileNet")
    batch = image_batch("MobileNet", "NHWC", 2)
    for contestant in CONTESTANTS:
        step = training_step(loss_of("MobileNet", contestant, model))
        after, loss = jax.eval_shape(step, state, batch)
        assert loss.shape == ()
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


def test_every_network_is_described():
    assert list(BY_LAX) == list(MODELS) == list(NETWORKS)


def number_of_parameters(name: str) -> int:
    state = jax.eval_shape(partial(initial_state, model_of(name, "NHWC")))
    return sum(each.size for each in jax.tree.leaves(state.parameters))


@pytest.mark.parametrize(
    ("name", "expected"), [("LeNet-5", 61_706), ("MNIST CNN", 824_458)]
)
def test_the_number_of_parameters_is_the_known_one(name, expected):
    assert number_of_parameters(name) == expected


def test_flax_has_the_same_number_of_parameters():
    pytest.importorskip("flax")
    from experiments.benchmarking import flax_networks

    for name in NETWORKS:
        images, _ = image_batch(name, "NHWC", 1)
        init = flax_networks.MODULES[name]().init
        shapes = jax.eval_shape(init, jax.random.key(0), images)["params"]
        sizes = [each.size for each in jax.tree.leaves(shapes)]
        assert sum(sizes) == number_of_parameters(name), name


def test_torch_has_the_same_number_of_parameters():
    pytest.importorskip("torch")
    from experiments.benchmarking.torch_networks import network

    for name in NETWORKS:
        found = sum(parameter.numel() for parameter in network(name).parameters())
        assert found == number_of_parameters(name), name


def test_torch_takes_part_from_a_process_of_its_own():
    pytest.importorskip("torch")
    with TorchWorker(benchmark.sys.executable) as torch:
        assert torch.version
        pool = Pool("max", 2, 2, 0, 2, 3, 4)
        for kind, case in ("layer", SMALL), ("pool", pool):
            for mode in "forward", "forward + backward":
                made = torch.contestants(kind, case, mode)
                assert [each.layout for each in made] == ["NCHW", "NHWC"]
                assert all(each.run(2) > 0 for each in made)
        torch.forget()


def test_an_interpreter_without_torch_is_an_error_that_says_so(tmp_path):
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\necho 'No module named torch' >&2\nexit 1\n")
    silent.chmod(0o755)
    with pytest.raises(RuntimeError, match="No module named torch"):
        TorchWorker(str(silent))


# --- Calls outside of jit -------------------------------------------------------------


def test_a_call_of_jaxcnn_and_one_of_lax_compute_the_same(rng):
    arrays = [
        [rng.standard_normal(shape) for shape in call.shapes.values()] for call in CALLS
    ]

    @jax.jit
    def computed(arrays):
        pairs = []
        for call, given in zip(CALLS, arrays, strict=True):
            functions = FUNCTIONS[call.function].values()
            if call.gradient:
                functions = [gradient(function, len(given)) for function in functions]
            pairs.append([jax.tree.leaves(function(*given)) for function in functions])
        return pairs

    for call, given, (ours, theirs) in zip(CALLS, arrays, computed(arrays), strict=True):
        if call.gradient:
            assert [each.shape for each in ours] == [each.shape for each in given]
        for found, expected in zip(ours, theirs, strict=True):
            assert relative_error(found, np.asarray(expected)) < 1e-13


def test_a_call_that_is_off_is_a_problem(monkeypatch):
    wrong = {"jaxcnn": lambda x: 1.001 * jax.nn.relu(x), "lax": jax.nn.relu}
    monkeypatch.setitem(FUNCTIONS, "relu", wrong)
    (found,) = benchmark.problems(measure_call(Call("relu"), 1))
    assert "eager, relu, call: jaxcnn (NCHW) is off by 1.0e-03" in found


def test_the_suite_of_calls_says_microseconds(monkeypatch, tmp_path, capsys):
    calls = Call("relu"), Call("relu", gradient=True)
    monkeypatch.setattr(benchmark_cases, "QUICK_CALLS", calls)
    monkeypatch.setattr(benchmark, "matrix_product_peak", lambda: 1e11)
    nobody = tmp_path / "no-such-python"
    settings = benchmark.Settings(
        "eager", quick=True, rounds=2, output_dir=tmp_path, torch_python=nobody
    )
    benchmark.main(settings)
    printed = capsys.readouterr().out
    for text in "µs", "jaxcnn / lax", "gradient of relu":
        assert text in printed
    found = json.loads((tmp_path / "results.json").read_text())["measurements"]
    assert {(each["case"], each["contestant"]) for each in found} == {
        (call.name, contestant) for call in calls for contestant in ("jaxcnn", "lax")
    }
    for each in found:
        assert (each["mode"], each["layout"], each["rounds"]) == ("call", "NCHW", 2)
        assert each["compile_seconds"] is None


# --- Times ----------------------------------------------------------------------------


def fake(seconds: float, called: list, steps: int = 1) -> Contestant:
    """A contestant that pretends to take this long."""

    def run(calls):
        called.append(calls)
        return calls * seconds

    return Contestant("fake", "NHWC", "step", run, steps)


def test_slow_contestants_get_fewer_rounds_and_fast_ones_more_calls():
    seconds = 1e-4, 0.1, 3.0, 20.0
    called = [[] for _ in seconds]
    contestants = [fake(*each) for each in zip(seconds, called, strict=True)]
    fast, usual, slow, endless = race(contestants, 0, "networks", "one")
    assert (fast.calls, usual.calls, slow.calls) == (40, 1, 1)
    assert 5 <= usual.rounds == fast.rounds <= 15
    assert (slow.rounds, endless.rounds) == (2, 1)
    assert len(called[3]) == 1, "the first call was the measurement"
    for each, second in zip((fast, usual, slow, endless), seconds, strict=True):
        assert each.median_ms == pytest.approx(1000 * second)


def test_the_time_of_a_scan_is_that_of_one_step():
    (found,) = race([fake(0.5, [], steps=5)], 3, "scan", "one")
    assert found.median_ms == pytest.approx(100)
    assert found.rounds == 3


def measurement(case, contestant, layout, median, mode="step") -> Measurement:
    return Measurement(
        "networks",
        case,
        mode,
        contestant,
        layout,
        median,
        median,
        median,
        5,
        1,
    )


MADE_UP = [
    measurement("one", "jaxcnn", "NHWC", 2.0),
    measurement("one", "jaxcnn", "NCHW", 5.0),
    measurement("one", "jaxcnn without loops", "NHWC", 1.0),
    measurement("one", "lax", "NHWC", 8.0),
    measurement("one", "lax", "NCHW", 4.0),
    measurement("two", "jaxcnn", "NHWC", 3.0),
    measurement("two", "jaxcnn", "NCHW", 1.0),
    measurement("two", "lax", "NHWC", 8.0),
    measurement("two", "torch", "NCHW", 0.5),
]


def test_everyone_counts_with_the_better_layout():
    own = fastest(MADE_UP[:5], "jaxcnn")
    assert own is not None
    assert (own.layout, own.median_ms) == ("NHWC", 2.0), "not the one without loops"
    assert fastest(MADE_UP, "flax") is None
    found = {(r.case, r.contestant, r.peer): r.times_faster for r in ratios(MADE_UP)}
    assert found == {
        ("one", "jaxcnn", "lax"): 2.0,
        ("one", "jaxcnn without loops", "lax"): 4.0,
        ("two", "jaxcnn", "lax"): 8.0,
        ("two", "jaxcnn", "torch"): 0.5,
    }


def test_ratios_are_summarized_by_geometric_mean_and_worst():
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    found = {(each.contestant, each.peer): each for each in summaries(ratios(MADE_UP))}
    against_lax = found["jaxcnn", "lax"]
    assert against_lax.geometric_mean == pytest.approx(4.0)
    assert (against_lax.cases, against_lax.worst, against_lax.worst_case) == (2, 2.0, "one")
    assert found["jaxcnn", "torch"].geometric_mean == pytest.approx(0.5)
    assert "0.50 times as fast as torch" in str(found["jaxcnn", "torch"])


def test_tables_and_chart_take_contestants_that_are_missing():
    time_table(MADE_UP, "networks", "step")
    cost_table(MADE_UP, "networks", "step")
    scan_table(MADE_UP)
    eager_table(MADE_UP)
    assert len(chart_of(ratios(MADE_UP)).axes) == 1
    chart_of([])


# --- The command ----------------------------------------------------------------------


def test_results_have_the_documented_fields(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark_cases, "QUICK_LAYERS", (SMALL,))
    pool = Pool("avg", 3, 2, 1, 2, 3, 7)
    monkeypatch.setattr(benchmark_cases, "QUICK_POOLS", (pool,))
    monkeypatch.setattr(benchmark, "matrix_product_peak", lambda: 1e11)
    monkeypatch.setattr(benchmark, "SUITES", ("layers", "pools"))
    quickly = {"xla_backend_optimization_level": 0}
    monkeypatch.setattr(jaxcnn, "compiler_options", lambda: quickly, raising=False)
    nobody = tmp_path / "no-such-python"
    output = tmp_path / "results"
    benchmark.main(
        benchmark.Settings(quick=True, rounds=2, output_dir=output, torch_python=nobody)
    )

    printed = capsys.readouterr().out
    assert "Without PyTorch" in printed
    assert "geometric mean" in printed
    assert "…" not in printed, "a column of a table is too narrow"
    assert sorted(path.name for path in output.iterdir()) == ["chart.png", "results.json"]
    assert (output / "chart.png").read_bytes().startswith(b"\x89PNG")

    results = json.loads((output / "results.json").read_text())
    assert results["problems"] == []
    assert results["peak_gflops"] == 100
    assert results["compiler_options"] == quickly
    for name in "date", "processor", "cores", "options", "compiler_options", "device":
        assert name in results
    assert results["versions"]["torch"] is None
    assert {"python", "jax", "jaxlib", "jaxcnn", "flax", "numpy"} <= set(
        results["versions"]
    )

    found = results["measurements"]
    assert set(found[0]) == set(asdict(MADE_UP[0]))
    assert {each["suite"] for each in found} == {"layers", "pools"}
    assert {each["mode"] for each in found} == {"forward", "forward + backward"}
    assert {(each["contestant"], each["layout"]) for each in found} == {
        ("jaxcnn", "NHWC"),
        ("jaxcnn", "NCHW"),
        ("jaxcnn without loops", "NHWC"),
        ("lax", "NHWC"),
        ("lax", "NCHW"),
    }
    for each in found:
        assert 0 < each["quartile1_ms"] <= each["median_ms"] <= each["quartile3_ms"]
        assert each["rounds"] == 2
        assert each["compile_seconds"] > 0
        assert each["temporary_bytes"] >= 0
        assert 0 <= each["error"] < 1e-5
        assert (each["peak_fraction"] is None) == (each["suite"] == "pools")
    both = [each for each in found if each["mode"] == "forward + backward"]
    assert set(both[0]["errors"]) == {"y", "dx", "dw"}
    assert set(results["summaries"][0]) >= {"peer", "geometric_mean", "worst_case"}
    assert results["ratios"][0]["times_faster"] > 0


def test_a_wrong_contestant_fails_the_command(monkeypatch, tmp_path):
    def wrong(layer, rounds, peak, torch):
        return [
            Measurement(
                "layers",
                layer.name,
                "forward",
                "jaxcnn",
                "NHWC",
                1.0,
                1.0,
                1.0,
                5,
                1,
                error=1e-3,
                compile_seconds=1.0,
                temporary_bytes=0,
            )
        ]

    monkeypatch.setattr(benchmark, "measure_layer", wrong)
    monkeypatch.setattr(benchmark, "matrix_product_peak", lambda: 1e11)
    settings = benchmark.Settings(
        "layers", quick=True, output_dir=tmp_path, torch_python=tmp_path / "none"
    )
    with pytest.raises(ClaimError, match=r"is off by 1\.0e-03"):
        benchmark.main(settings)
    assert json.loads((tmp_path / "results.json").read_text())["problems"]


def test_a_name_that_no_case_has_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "matrix_product_peak", lambda: 1e11)
    settings = benchmark.Settings(only="no such", torch_python=tmp_path / "none")
    with pytest.raises(ValueError, match="no case is named like 'no such'"):
        benchmark.main(settings)


def test_a_convolution_that_is_a_little_off_is_a_problem(monkeypatch):
    right = jaxcnn.conv2d
    monkeypatch.setattr(jaxcnn, "conv2d", lambda *a, **known: 1.001 * right(*a, **known))
    found = benchmark.problems(measure_layer(SMALL, 1, 1e11, None))
    ways = 3 if has_loops() else 2
    assert len(found) == 2 * ways, "two modes; two layouts, and one of them without loops"
    assert all("jaxcnn" in each for each in found)
