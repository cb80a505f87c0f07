"""Compiling for TPUs where there is none, and what is read from a compiled program."""

import functools
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from experiments import tpu
from experiments.compilers.account import Account, Traffic, account_of, collectives

DEVICES = 8


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: experiments run with JAX's defaults."""


def account_on_cpus(function, *, out_specs):
    """Of a program for eight numbers on each of eight devices."""
    over_devices = jax.shard_map(
        function,
        mesh=jax.make_mesh((DEVICES,), ("batch",), axis_types=(AxisType.Auto,)),
        in_specs=P("batch"),
        out_specs=out_specs,
        check_vma=False,  # which does not know that an all-gather leaves all alike
    )
    numbers = jax.ShapeDtypeStruct((DEVICES * 8,), "float32")
    return account_of(jax.jit(over_devices).lower(numbers).compile())


along = functools.partial(functools.partial, axis_name="batch")
COLLECTIVES = {
    "all-reduce": (along(jax.lax.psum), P(), Traffic(1, 8 * 4)),
    "all-gather": (along(jax.lax.all_gather), P(), Traffic(1, DEVICES * 8 * 4)),
    "reduce-scatter": (
        along(jax.lax.psum_scatter, tiled=True),
        P("batch"),
        Traffic(1, 8 // DEVICES * 4),
    ),
    "collective-permute": (
        along(jax.lax.ppermute, perm=[(0, 1), (1, 0)]),
        P("batch"),
        Traffic(1, 8 * 4),
    ),
    "all-to-all": (
        along(jax.lax.all_to_all, split_axis=0, concat_axis=0),
        P("batch"),
        Traffic(1, 8 * 4),
    ),
}


@pytest.mark.parametrize("kind", COLLECTIVES)
def test_a_collective_is_found_in_a_program_for_eight_devices(kind):
    function, out_specs, traffic = COLLECTIVES[kind]
    account = account_on_cpus(function, out_specs=out_specs)
    assert account.collectives == {kind: traffic}


def test_a_program_whose_devices_tell_each_other_nothing_has_no_collectives():
    account = account_on_cpus(jnp.sin, out_specs=P("batch"))
    assert account.collectives == {}
    assert account.arguments == account.outputs == 8 * 4


def test_results_of_all_kinds_are_added_up_and_halves_are_counted_once():
    program = """
      %sums = (f32[1,1,1,16]{3,2,1,0:T(1,128)S(1)}, /*index=1*/bf16[3,5]{1,0:T(8,128)(2,1)})
        all-reduce(%a, %b), replica_groups={{0,1,2,3}}
      %both = (u8[3]{0}, u8[12]{0}) all-gather-start(%c), dimensions={0}
      ROOT %all = u8[12]{0} all-gather-done(%both)
      %truth = pred[] all-reduce(%d), to_apply=%or
      %part = f32[] get-tuple-element(%all-reduce.1), index=0
    """.replace("\n        all", " all")
    assert collectives(program) == {
        "all-reduce": Traffic(2, 16 * 4 + 15 * 2 + 1),
        "all-gather": Traffic(1, 12),
    }


def test_an_all_gather_and_too_much_memory_are_faults():
    def faults(arguments, *kinds):
        traffic = dict.fromkeys(kinds, Traffic(1, 4))
        account = Account(arguments, 0, 0, 0.0, 0.0, 0, traffic)
        return tpu.Program("v5e:2x2", 4, "float32", account).faults()

    assert faults(tpu.MEMORY, "all-reduce") == []
    assert faults(0, "all-gather", "all-reduce") == [
        "v5e:2x2, float32: there is an all-gather"
    ]
    assert faults(tpu.MEMORY + 1) == [
        "v5e:2x2, float32: takes 17,179,869,185 bytes of a chip's 17,179,869,184"
    ]


def test_without_libtpu_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setattr(tpu, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r': pip install "jaxcnn\[tpu\]"$'):
        tpu.main(tpu.Settings())


@pytest.mark.skipif(find_spec("libtpu") is None, reason=tpu.MISSING)
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_the_training_step_compiles_for_four_chips_that_only_add_up(precision):
    program = tpu.data_parallel("v5e:2x2", precision, images=8)
    assert program.chips == 4
    assert program.faults() == []
    parameters = 274_042
    # Of all gradients once, and a few numbers for every channel.
    (traffic,) = program.account.collectives.values()
    size = jnp.dtype(precision).itemsize
    assert parameters * size < traffic.bytes < 1.1 * parameters * size
    # Three times as much as forwards, in which a pixel is used 40 million times.
    assert program.account.flops == pytest.approx(8 * 3 * 2 * 41e6, rel=0.1)
