"""What lowers, what does not and is named, and what is read from what was compiled."""

import json
from dataclasses import replace
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import pytest

from experiments import platforms
from experiments.compilers import tables
from experiments.compilers.account import Account, account_of, unestimated
from experiments.compilers.tables import LAX, OURS, Outcome
from experiments.platforms import MISSING, Settings
from experiments.run.command import ClaimError

SETTINGS = Settings(op=("relu", "dense"), network=(), topologies=())


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: experiments run with JAX's defaults."""


def account(flops: float, cycles: int = 0, **fields) -> Account:
    return Account(0, 0, 0, flops, 0.0, cycles, {}, **fields)


def test_operations_are_lowered_compiled_for_the_cpu_and_written(tmp_path, capsys):
    output = tmp_path / "platforms.json"
    outcomes = platforms.main(replace(SETTINGS, output=output))
    assert [each.name for each in outcomes] == ["relu", "dense"]
    printed = capsys.readouterr().out
    assert "lowered for cpu, cuda, rocm, tpu" in printed
    assert {line.split()[1] for line in printed.splitlines() if "relu" in line} == {"✓"}
    dense = json.loads(output.read_text())["outcomes"][1]
    assert dense["failures"] == {}
    by_jaxcnn = dense["accounts"]["cpu"][OURS]
    # Value, dx and dw of 512×1024 by 1024×256; of adding a bias there is a little more.
    assert by_jaxcnn["flops"] == pytest.approx(3 * 2 * 512 * 1024 * 256, rel=0.01)
    assert by_jaxcnn["arguments"] == 4 * (512 * 1024 + 1024 * 256 + 256 + 512 * 256)


def test_without_libtpu_it_says_what_to_install_and_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(platforms, "find_spec", lambda name: None)
    (relu,) = platforms.main(replace(SETTINGS, op=("relu",), topologies=("v5e:2x2",)))
    assert relu.accounts.keys() == {"cpu"}
    assert MISSING in capsys.readouterr().out


def test_what_does_not_lower_is_named_and_the_rest_goes_on(monkeypatch, capsys):
    def on_all_but_tpus(x):
        return jax.lax.platform_dependent(x, cpu=jnp.sin, cuda=jnp.sin, rocm=jnp.sin)

    planted = replace(platforms.timed_case("relu", 0), custom=on_all_but_tpus)
    monkeypatch.setattr(platforms, "timed_case", lambda name, seed: planted)
    with pytest.raises(ClaimError) as stopped:
        platforms.main(replace(SETTINGS, op=("relu",)))
    alone, in_one = (line for line in str(stopped.value).split("\n") if "relu, " in line)
    assert alone.startswith("relu, lowered for tpu: NotImplementedError: ")
    assert in_one.startswith(
        "relu, lowered for cpu, cuda, rocm, tpu: NotImplementedError: "
    )
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "relu  " in line)
    assert row.split()[:2] == ["relu", "✗"]


def test_an_operation_that_there_is_not_is_named():
    with pytest.raises(ValueError, match=r"^no operation is called convolve$"):
        platforms.main(replace(SETTINGS, op=("relu", "convolve")))


def test_a_training_step_is_of_arrays_alone_and_is_lowered():
    step = platforms.of_network("LeNet-5", images=2)
    platforms.lower(step, ("cpu", "tpu"))
    results = {
        who: jax.eval_shape(program, *step.shapes) for who, program in step.programs.items()
    }
    assert results[OURS] == results[LAX]
    assert results[OURS][-1].shape == ()  # the loss, after the new state


def test_ratios_and_what_is_slower():
    first = Outcome("first", {"v5e:2x2": {OURS: account(6, 30), LAX: account(4, 10)}})
    second = Outcome("second", {"v5e:2x2": {OURS: account(6, 10), LAX: account(0, 10)}})
    half = Outcome("half", {"v5e:2x2": {OURS: account(6, 10)}})
    flops, cycles = (("v5e:2x2", measure) for measure in ("flops", "cycles"))
    outcomes = [first, second, half]
    assert [each.ratio(*flops) for each in outcomes] == [1.5, float("inf"), None]
    assert tables.columns_of(outcomes) == [flops, cycles]
    assert tables.middle(outcomes, *cycles) == 2
    assert tables.slower(outcomes) == ["first takes 3.00 times lax's cycles on v5e:2x2"]
    assert tables.cell(float("inf")).plain == "∞"


def test_figures_that_are_without_something_are_marked():
    loop = account_of(
        jax.jit(lambda n: jax.lax.fori_loop(0, n, jnp.add, 0)).lower(3).compile()
    )
    assert loop.loops == 1
    pool = account(1, 1, unestimated={"reduce-window": 1})
    outcome = Outcome("", {"cpu": {OURS: loop, LAX: account(1)}, "v5e": {OURS: pool}})
    columns = ("cpu", "flops"), ("v5e", "flops"), ("v5e", "cycles")
    assert [outcome.marks(*column) for column in columns] == ["*", "", "?"]


def test_only_instructions_on_arrays_without_cycles_are_unestimated():
    known = 'backend_config={"flag_configs":[]'
    program = f"""
%fused_computation.2 (p: f32[2]) -> f32[2] {{
  ROOT %a = f32[2]{{0:T(128)}} maximum(%p, %p), {known}}}
}}
ENTRY %main (x: f32[2]) -> f32[2] {{
  %b = f32[2]{{0:T(128)}} reduce-window(%x), {known}}}
  %c = f32[2]{{0:T(128)}} fusion(%x), {known},"config":{{"estimated_cycles":"9"}}}}
  %d = f32[] add(%x, %x), {known}}}
  %e = f32[2]{{0:T(128)}} custom-call(%x), {known}}}
  ROOT %f = f32[2]{{0:T(128)}} bitcast(%b)
}}
"""
    assert unestimated(program) == {"reduce-window": 1}


@pytest.mark.skipif(find_spec("libtpu") is None, reason=MISSING)
def test_an_operation_is_compiled_for_two_generations_of_tpus():
    (relu,) = platforms.main(
        replace(SETTINGS, op=("relu",), topologies=("v5e:2x2", "v6e:2x2"))
    )
    assert relu.accounts.keys() == {"cpu", "v5e:2x2", "v6e:2x2"}
    for topology in ("v5e:2x2", "v6e:2x2"):
        assert relu.accounts[topology][OURS].cycles > 0
        assert relu.ratio(topology, "bytes") == 1
