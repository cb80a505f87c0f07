"""What JAX promises of every function holds of jaxcnn's: dtypes, memory, and debugging."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import checkify
from jax.extend.core import jaxprs_in_params

import jaxcnn
from experiments.gradients.operations import OPERATIONS, cases
from tests import asked


def squares(function):
    return lambda *operands: jnp.sum(jnp.square(function(*operands)))


def in_both_modes(function):
    """Of the operands: the value, gradients, the tangent along them, and the gradients'."""

    def computed(*operands):
        by_all = tuple(range(len(operands)))
        y, dy = jax.jvp(function, operands, operands)
        gradients = jax.grad(squares(function), by_all)
        return y, dy, jax.jvp(gradients, operands, operands)

    return computed


# --- What is traced -------------------------------------------------------------------


def primitives_in(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jaxprs_in_params(equation.params):
            yield from primitives_in(inner)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_operation_has_a_custom_vjp_and_so_no_forward_mode(operation):
    case = next(cases(operation, 0))
    for function in (case.custom, case.autodiff):
        traced = jax.make_jaxpr(function)(*case.arguments.values()).jaxpr
        assert not [name for name in primitives_in(traced) if "vjp" in name]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_dtype_stays_in_both_modes(operation, dtype):
    """With float64 enabled and strict promotion, as everywhere in these tests."""
    assert jax.config.jax_enable_x64
    assert jax.config.jax_numpy_dtype_promotion == "strict"
    case = next(cases(operation, 0))
    operands = [jax.ShapeDtypeStruct(x.shape, dtype) for x in case.arguments.values()]
    results = jax.eval_shape(in_both_modes(case.custom), *operands)
    assert {each.dtype for each in jax.tree.leaves(results)} == {jnp.dtype(dtype)}


# What jaxcnn computes with an array, and what JAX does.
OF_WEAK_TYPE = {
    "conv2d": (
        lambda x: jaxcnn.conv2d(x, x[:, :, :2, :2]),
        lambda x: lax.conv(x, x[:, :, :2, :2], (1, 1), "VALID"),
    ),
    "conv2d, strong weights": (
        lambda x: jaxcnn.conv2d(x, jnp.ones((1, 2, 2, 2), x.dtype)),
        lambda x: lax.conv(x, jnp.ones((1, 2, 2, 2), x.dtype), (1, 1), "VALID"),
    ),
    "relu": (jaxcnn.relu, jax.nn.relu),
    "max_pool2d": (
        lambda x: jaxcnn.max_pool2d(x, 2),
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2)),
    ),
    "avg_pool2d": (
        lambda x: jaxcnn.avg_pool2d(x, 2),
        lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 1, 2, 2), (1, 1, 2, 2)) / 4,
    ),
}


@pytest.mark.parametrize("name", OF_WEAK_TYPE)
def test_a_weak_type_stays_one_where_it_is_jaxs(name):
    ours, jaxs = OF_WEAK_TYPE[name]
    x = lax.broadcast(jnp.asarray(0.5), (1, 2, 4, 4))
    assert x.weak_type

    def weak_types(function):
        def computed(x):
            return jax.grad(lambda x: function(x).sum())(x), jax.jvp(function, (x,), (x,))

        results = computed(x), jax.eval_shape(computed, x)
        return jax.tree.map(lambda y: y.weak_type, results)

    wanted = weak_types(jaxs)
    assert weak_types(ours) == wanted
    with jaxcnn.patched_jax():
        assert asked.traced(jaxs, x) or name == "relu"
        assert weak_types(jaxs) == wanted


# --- Checkpoints and donation ---------------------------------------------------------


def network(parameters, x):
    w, v = parameters
    for _ in range(2):
        x = jaxcnn.relu(jaxcnn.conv2d(x, w, padding=1))
    return jnp.mean(jnp.square(jaxcnn.dense(jaxcnn.global_avg_pool(x), v)))


def parameters_and_images(rng):
    w, v = rng.standard_normal((3, 3, 3, 3)), rng.standard_normal((3, 2))
    return (w, v), rng.standard_normal((2, 3, 6, 5))


def is_convolution(primitive, *_, **__):
    """A policy for ``jax.checkpoint``."""
    return primitive.name.startswith("conv_")


@pytest.mark.parametrize(
    ("policy", "convolutions"),
    [
        (None, 2 * 3),
        (is_convolution, 3),  # two, and the dense layer, which is one without positions
        (jax.checkpoint_policies.everything_saveable, 3),
    ],
)
def test_a_policy_says_which_convolutions_are_computed_once(rng, policy, convolutions):
    operands = parameters_and_images(rng)
    checkpointed = jax.grad(jax.checkpoint(network, policy=policy))
    traced = jax.make_jaxpr(checkpointed)(*operands).jaxpr
    assert list(primitives_in(traced)).count("conv_forward") == convolutions
    chex.assert_trees_all_close(
        jax.jit(checkpointed)(*operands), jax.jit(jax.grad(network))(*operands)
    )


def test_what_is_donated_is_used_again(rng):
    operands = parameters_and_images(rng)

    def step(parameters, x):
        gradients = jax.grad(network)(parameters, x)
        return jax.tree.map(lambda w, dw: w - 0.1 * dw, parameters, gradients)

    wanted = jax.jit(step)(*operands)
    parameters, x = jax.device_put(operands)
    computed = jax.jit(step, donate_argnums=0)(parameters, x)
    assert all(each.is_deleted() for each in parameters)
    chex.assert_trees_all_equal(computed, wanted)


# --- Debugging ------------------------------------------------------------------------

DEBUGGED = {
    "conv2d": lambda x: jaxcnn.conv2d(x, jnp.ones((2, 3, 3, 2), x.dtype)),
    "max_pool2d": functools.partial(jaxcnn.max_pool2d, kernel_size=3, padding=1),
    "adaptive_max_pool2d": functools.partial(jaxcnn.adaptive_max_pool2d, output_size=4),
    "batch_norm": lambda x: jaxcnn.batch_norm(x, None, None, training=True)[0],
    "log_softmax": jaxcnn.log_softmax,
}
every_debugged = pytest.mark.parametrize("name", DEBUGGED)


@every_debugged
def test_without_jit_everything_is_the_same(rng, name):
    x, computed = rng.standard_normal((2, 3, 6, 5)), in_both_modes(DEBUGGED[name])
    wanted = jax.jit(computed)(x)
    with jax.disable_jit():
        # Float64, a hundred terms of order 1, added in another order.
        chex.assert_trees_all_close(computed(jnp.asarray(x)), wanted, atol=1e-11)


@every_debugged
def test_the_search_for_nans_finds_one_and_none_where_there_is_none(rng, name):
    function = DEBUGGED[name]
    ways = {
        "value": function,
        "jit": jax.jit(function),
        "grad": jax.grad(squares(function)),
        "jvp": lambda x: jax.jvp(function, (x,), (x,)),
        "vmap": jax.vmap(lambda x: function(x[None])),
    }
    x = jnp.asarray(rng.standard_normal((2, 3, 6, 5)))
    with_nan = x.at[0, 1, 2, 3].set(np.nan)
    with jax.debug_nans(True):
        for way in ways.values():
            way(x)
            with pytest.raises(FloatingPointError, match=r"\(nan\) encountered in \w+"):
                way(with_nan)


def test_the_search_for_nans_says_in_which_primitive_it_is():
    x = jnp.array([[[np.inf, -np.inf]]])
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="in conv_forward"):
        jaxcnn.conv1d(x, jnp.ones((1, 1, 2)))


@pytest.mark.parametrize(
    ("derivatives", "is_seen"), [("custom", False), ("autodiff", True)]
)
def test_checkify_sees_into_an_operation_that_jax_differentiates(derivatives, is_seen):
    # As docs/exactness.md says: there is no public way to tell it what to check.
    x, w = jnp.full((1, 1, 3, 3), jnp.inf), jnp.zeros((1, 1, 2, 2))

    def convolve(x):
        return jaxcnn.conv2d(x, w, derivatives=derivatives)

    error, y = checkify.checkify(convolve, errors=checkify.nan_checks)(x)
    assert jnp.isnan(y).all()
    assert (error.get() is not None) == is_seen
