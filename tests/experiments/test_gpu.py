"""The command for a GPU: it tests, times, goes on, and ends in time. Tried on a CPU."""

import json
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import gpu
from experiments.benchmarking import cases
from experiments.benchmarking.cases import Layer, OnGpu, Pool
from experiments.benchmarking.timing import Measurement
from experiments.gpu import Settings, Verdict

LAYER = OnGpu(
    Layer(2, 3, 3, (7, 7), 3, padding=1, groups=3),
    ("forward + backward", "weight gradient"),
)
POOL = OnGpu(Pool("max", 2, 2, 0, 2, 3, 4), dtype="bfloat16")
REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_good"/>
<testcase classname="tests.test_a" name="test_bad[1]"><failure/></testcase>
<testcase classname="tests.test_a" name="test_broken"><error/></testcase>
<testcase classname="tests.test_a" name="test_elsewhere"><skipped/></testcase>
</testsuite></testsuites>"""


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: what is timed are JAX's defaults."""


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """No loops, as the command has it; no PyTorch; no tests but where a test undoes it."""
    monkeypatch.setenv("JAXCNN_LOOPS", "0")
    monkeypatch.setattr(gpu.sys, "executable", "/no/such/python")
    monkeypatch.setattr(gpu, "tested", lambda *_: Verdict(3, note="Without the others"))


def of_network(name, rounds, torch, images):
    return [
        Measurement("networks", name, "step", who, "NHWC", 2.5, 2.5, 2.5, 2, 1)
        for who in ("jaxcnn", "lax")
    ]


def test_the_results_say_what_was_timed_and_tested(monkeypatch, tmp_path, capsys):
    network = OnGpu("LeNet-5", ("step",), images=4)
    monkeypatch.setattr(cases, "QUICK_ON_GPU", (LAYER, POOL, network))
    monkeypatch.setattr(gpu, "measure_network", of_network)
    gpu.main(Settings(quick=True, output_dir=tmp_path))
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["setting"]["versions"]["torch"] is None
    assert found["tests"]["passed"] == 3
    assert found["different"] == {"jaxcnn": 1, "lax": 1, "lax, deterministic": 1}
    assert found["left_out"] == [] and found["failures"] == {}
    timed = {
        (each["case"], each["mode"], each["contestant"], each["layout"])
        for each in found["measurements"]
        if each["suite"] == "gpu"
    }
    everyone = ("jaxcnn", "lax")
    layers = {
        (case.name, mode, contestant, layout)
        for case in (LAYER, POOL)
        for mode in case.modes
        for contestant in (*everyone, *([gpu.BY_SUMS] if case is LAYER else []))
        for layout in ("NCHW", "NHWC")
    }
    assert timed == layers | {(network.name, "step", each, "NHWC") for each in everyone}
    page = (tmp_path / "gpu.md").read_text()
    assert page.strip() in capsys.readouterr().out
    assert "| microseconds | jaxcnn | by `reductions` | lax | PyTorch |" in page
    assert "| LeNet-5, batch 4: step | 2,500 | – | 2,500 | – |" in page
    assert "| lax | 3 | " in page, "parts do not count"
    assert "8 times by jaxcnn: 1 different" in page
    assert "3 tests passed, 0 failed. Without the others" in page


def test_a_case_that_fails_hides_no_other(monkeypatch, tmp_path):
    broken = OnGpu(Layer(2, 3, 4, (7, 7), 3, groups=2))
    monkeypatch.setattr(cases, "QUICK_ON_GPU", (broken, POOL))
    results = gpu.main(Settings(quick=True, output_dir=tmp_path))
    assert results.failures.keys() == {broken.name}
    assert f"{broken.name} failed: " in (tmp_path / "gpu.md").read_text()
    assert any(each.case == POOL.name for each in results.measurements)


def test_what_there_is_no_time_for_is_named(monkeypatch, tmp_path):
    results = gpu.main(Settings(quick=True, minutes=0, output_dir=tmp_path))
    assert results.left_out == [each.name for each in cases.QUICK_ON_GPU]
    assert "Without time for: 7×7 depthwise 4" in (tmp_path / "gpu.md").read_text()


def test_without_a_gpu_it_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"JAX finds no GPU, but a cpu: try .* --quick"):
        gpu.main(Settings(output_dir=tmp_path))


def test_all_cases_have_names_of_their_own():
    for every in cases.ON_GPU, cases.QUICK_ON_GPU:
        names = [each.name for each in every]
        assert len(set(names)) == len(names)


def test_the_command_line_is_the_settings():
    assert gpu.settings_of([]) == Settings()
    given = ["--quick", "--minutes", "3", "--output-dir", "here"]
    assert gpu.settings_of(given) == Settings(True, 3, Path("here"))


def test_algorithms_are_found_in_a_program():
    program = (
        '%c = (f32[8]) custom-call(%x, %w), custom_call_target="__cudnn$convForward", '
        'backend_config={"cudnn_conv_backend_config":{"algorithm":{"algo_id":"28"}}}\n'
        '%d = f32[8] custom-call(%x), custom_call_target="other"\n'
    )
    assert gpu.ALGORITHM.findall(program) == [("__cudnn$convForward", "28")]


# --- Tests that are run ---------------------------------------------------------------


def test_every_file_of_tests_is_there():
    for path in (*gpu.TESTS, *gpu.QUICK_TESTS):
        assert (gpu.ROOT / path).is_file()


def test_a_report_names_what_failed(tmp_path):
    report = tmp_path / "tests.xml"
    report.write_text(REPORT)
    found = gpu.tests_in(report)
    assert found == Verdict(1, 1, ["tests.test_a.test_bad[1]", "tests.test_a.test_broken"])
    assert str(replace(found, note="They were stopped after 9 s")) == (
        "1 tests passed, 2 failed. They were stopped after 9 s. tests.test_a.test_bad[1]. "
        "tests.test_a.test_broken"
    )


@pytest.mark.parametrize("obeys", [True, False])
def test_tests_that_take_too_long_are_stopped(monkeypatch, tmp_path, obeys):
    monkeypatch.undo()
    report, told = tmp_path / "tests.xml", []

    class Endless:
        returncode = None

        def __init__(self, command, cwd, env):
            assert env["JAX_DEFAULT_MATMUL_PRECISION"] == "highest"
            assert f"--junitxml={report}" in command

        def wait(self, seconds=None):
            if not told or (told == [signal.SIGINT] and not obeys):
                raise subprocess.TimeoutExpired("pytest", seconds)

        def send_signal(self, number):
            told.append(number)
            if obeys:
                report.write_text(REPORT)

        def kill(self):
            told.append(signal.SIGKILL)

    monkeypatch.setattr(gpu.subprocess, "Popen", Endless)
    found = gpu.tested(("tests/test_a.py",), report, 9)
    assert found.note == "They were stopped after 9 s"
    assert found.passed == obeys
    assert told == [signal.SIGINT] if obeys else [signal.SIGINT, signal.SIGKILL]


def test_tests_are_run_in_a_process_of_their_own(monkeypatch, tmp_path):
    monkeypatch.undo()
    file = tmp_path / "test_one.py"
    file.write_text(
        "import os\n\n"
        "def test_products_are_precise():\n"
        "    assert os.environ['JAX_DEFAULT_MATMUL_PRECISION'] == 'highest'\n\n"
        "def test_bad():\n    assert False\n"
    )
    found = gpu.tested((str(file),), tmp_path / "folder" / "tests.xml", 600)
    (failed,) = found.failed
    assert failed.endswith("test_one.test_bad")
    assert found == Verdict(1, 0, [failed])


def test_without_pytest_there_are_no_tests(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    found = gpu.tested(("tests/test_a.py",), tmp_path / "tests.xml", 9)
    assert found == Verdict(note="pytest is not installed")
