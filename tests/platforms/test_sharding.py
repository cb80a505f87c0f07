"""Arrays spread over eight virtual devices: the same gradients as on one.

With automatic sharding, with explicit sharding, and inside ``shard_map``, where JAX checks
which values differ from device to device.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxcnn

B, C, H = 8, 4, 8  # images for every device, or for each of two times four


@functools.cache
def mesh(kind):
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind, kind))


def drawn(rng, layout):
    """Images, labels, and the parameters of a network for them."""
    x = rng.standard_normal((B, C, H, H))
    w = rng.standard_normal((8, C // 2, 3, 3))
    if layout == "NHWC":
        x, w = x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0)
    parameters = {"w": w, "b": rng.standard_normal(8), "d": rng.standard_normal((8, 5))}
    floats = jax.tree.map(lambda each: each.astype("float32"), (parameters, x))
    return *floats, np.arange(B) % 5


@functools.cache
def loss_of(layout):
    """A network: its losses, one for each image."""

    def losses(parameters, x, labels):
        w, b, d = (parameters[name] for name in "wbd")
        y = jaxcnn.conv2d(x, w, b, padding=1, groups=2, layout=layout)
        y = jaxcnn.max_pool2d(jaxcnn.relu(y), (3, 2), 2, padding=(1, 0), layout=layout)
        y = jaxcnn.avg_pool2d(y, 2, layout=layout)
        y = jaxcnn.global_avg_pool(y, layout=layout)
        return jaxcnn.softmax_cross_entropy(jaxcnn.dense(y, d), labels)

    return losses


def ones(*shape):
    return jnp.ones(shape, "float32")


def kernel(*shape):
    return ones(*shape) / 6  # so that a result of 36 terms is of order 1


OPERATIONS = {
    "conv2d": lambda x: jaxcnn.conv2d(x, kernel(C, C, 3, 3), ones(C)),
    "conv2d with mirrors": lambda x: jaxcnn.conv2d(
        x, kernel(C, C, 3, 2), padding=1, padding_mode="reflect"
    ),
    "conv_transpose2d": lambda x: jaxcnn.conv_transpose2d(x, kernel(C, C, 3, 2), stride=2),
    "depthwise_conv2d": lambda x: jaxcnn.depthwise_conv2d(x, kernel(2 * C, 1, 3, 2)),
    "max_pool2d": functools.partial(jaxcnn.max_pool2d, kernel_size=(3, 2), stride=2),
    "max_unpool2d": lambda x: jaxcnn.max_unpool2d(
        *jaxcnn.max_pool2d(x, 2, return_indices=True), 2
    ),
    "avg_pool2d": functools.partial(jaxcnn.avg_pool2d, kernel_size=(3, 2), stride=2),
    "lp_pool2d": functools.partial(jaxcnn.lp_pool2d, norm_type=2, kernel_size=2),
    "adaptive_max_pool2d": lambda x: jaxcnn.max_unpool2d(
        *jaxcnn.adaptive_max_pool2d(x, 3, return_indices=True), 2, output_size=H
    ),
    "adaptive_avg_pool2d": functools.partial(
        jaxcnn.adaptive_avg_pool2d, output_size=(3, 5)
    ),
    "global_avg_pool": jaxcnn.global_avg_pool,
    "unfold": functools.partial(jaxcnn.unfold, kernel_size=2),
    "fold": lambda x: jaxcnn.fold(jaxcnn.unfold(x, 2), H, 2),
    "batch_norm": lambda x: jaxcnn.batch_norm(
        x, None, None, ones(C), ones(C), training=True
    )[0],
    "group_norm": lambda x: jaxcnn.group_norm(x, 2, ones(C), ones(C)),
    "layer_norm": lambda x: jaxcnn.layer_norm(x, H, ones(H), ones(H)),
    "instance_norm": lambda x: jaxcnn.instance_norm(x, ones(C), ones(C)),
    "dropout": lambda x: jaxcnn.dropout(x, jax.random.key(0)),
    "dense": lambda x: jaxcnn.dense(x, jnp.eye(H, 3, dtype="float32")),
    "relu": jaxcnn.relu,
    "gelu": jaxcnn.gelu,
    "log_softmax": jaxcnn.log_softmax,
    "softmax_cross_entropy": lambda x: jaxcnn.softmax_cross_entropy(
        x, jnp.zeros(x.shape[:-1], jnp.int32)
    ),
}

LARGE_WINDOWS = {
    f"{pool.__name__} of 9×9": functools.partial(pool, kernel_size=9, padding=4)
    for pool in (jaxcnn.max_pool2d, jaxcnn.avg_pool2d)
}
SPREAD = {**OPERATIONS, **LARGE_WINDOWS}


def images(rng, devices=1):
    return rng.standard_normal((devices * B, C, H, H)).astype("float32")


@functools.cache
def in_both_modes(losses):
    """The mean loss's gradients, by parameters and images, and its tangent along these."""

    def computed(parameters, x, labels):
        def mean_loss(*operands):
            return losses(*operands, labels).mean()

        operands = parameters, x
        gradients = jax.grad(mean_loss, (0, 1))(*operands)
        return gradients, jax.jvp(mean_loss, operands, operands)[1]

    return jax.jit(computed)


def close(ours, theirs):
    # Float32, for which the plan has engines: some hundred terms of order 1, added in
    # another order: √100 · 6e-8 · 10, for terms ten times as large as the result.
    ours, theirs = jax.device_get((ours, theirs))
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=6e-5)


def spread(arrays, specs, kind):
    def put(array, spec):
        return jax.device_put(array, NamedSharding(mesh(kind), spec))

    return jax.tree.map(put, arrays, specs)


def specs_of(layout, *, channels=None, spatial=None, features=None):
    """How images and weights are spread: images over "data", and what else is asked for."""
    axes = {"N": "data", "C": channels, "H": spatial, "W": None}
    weights = {"O": features, "I": None, "H": None, "W": None}
    letters = "OIHW" if layout == "NCHW" else "HWIO"
    return (
        {
            "w": P(*(weights[letter] for letter in letters)),
            "b": P(features),
            "d": P(),
        },
        P(*(axes[letter] for letter in layout)),
        P("data"),
    )


WAYS = {
    "images": {},
    "images and input channels": {"channels": "model"},
    "images and rows": {"spatial": "model"},
    "images and output channels": {"features": "model"},
}
every_kind = pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])


@every_kind
@pytest.mark.parametrize(
    ("layout", "way"), [("NCHW", "images"), *(("NHWC", way) for way in WAYS)]
)
def test_both_modes_are_those_of_one_device(rng, kind, layout, way):
    arrays, losses = drawn(rng, layout), loss_of(layout)
    wanted = in_both_modes(losses)(*arrays)
    specs = specs_of(layout, **WAYS[way])
    with jax.set_mesh(mesh(kind)):
        computed = in_both_modes(losses)(*spread(arrays, specs, kind))
    close(computed, wanted)


def test_explicit_sharding_says_how_outputs_and_gradients_are_spread(rng, layout="NHWC"):
    arrays, losses = drawn(rng, layout), loss_of(layout)
    parameters, x, labels = spread(arrays, specs_of(layout), AxisType.Explicit)
    with jax.set_mesh(mesh(AxisType.Explicit)):
        assert jax.typeof(losses(parameters, x, labels)).sharding.spec == P("data")
        (dw, dx), _ = in_both_modes(losses)(parameters, x, labels)
    assert jax.typeof(dx) == jax.typeof(x)
    assert jax.tree.map(jax.typeof, dw) == jax.tree.map(jax.typeof, parameters)


def sines(operation):
    """The sum of its sines, whose derivatives of any order are as large as its terms.

    That of the squares of a norm is a constant.
    """
    return lambda x: jnp.sum(jnp.sin(operation(x)))


def with_tangent(operation):
    """The gradient of its sum of sines, and its value and tangent along dx."""

    def computed(x, dx):
        return jax.grad(sines(operation))(x), *jax.jvp(operation, (x,), (dx,))

    return jax.jit(computed)


on_one_device = functools.cache(lambda name: with_tangent(SPREAD[name]))


@pytest.mark.parametrize("name", SPREAD)
def test_explicit_sharding_is_known_to_every_operation(rng, name):
    arrays = images(rng), images(rng)
    computed = on_one_device(name)
    x, dx = spread(arrays, (P("data", "model"),) * 2, AxisType.Explicit)
    with jax.set_mesh(mesh(AxisType.Explicit)):
        gradient, y, dy = computed(x, dx)
    assert jax.typeof(gradient) == jax.typeof(x)
    assert jax.typeof(dy) == jax.typeof(y)
    close((gradient, y, dy), computed(*arrays))


@pytest.mark.parametrize("name", SPREAD)
@pytest.mark.parametrize("check_vma", [True, False])
def test_inside_of_shard_map_every_operation_knows_what_varies(rng, name, check_vma):
    arrays = images(rng, devices=4), images(rng, devices=4)
    over_devices = jax.shard_map(
        SPREAD[name],
        mesh=mesh(AxisType.Auto),
        in_specs=(P("data"),),
        out_specs=P("data"),
        check_vma=check_vma,
    )
    parts = zip(*(np.split(each, 4) for each in arrays), strict=True)
    parts = [on_one_device(name)(*part) for part in parts]
    wanted = tuple(map(np.concatenate, zip(*parts, strict=True)))
    close(with_tangent(over_devices)(*arrays), wanted)


@pytest.mark.parametrize(
    ("layout", "derivatives", "check_vma"),
    [
        ("NCHW", "custom", True),
        ("NHWC", "custom", True),
        ("NHWC", "custom", False),
        ("NHWC", "autodiff", True),
    ],
)
def test_both_modes_inside_of_shard_map_are_those_of_one_device(
    rng, layout, derivatives, check_vma
):
    arrays, losses = drawn(rng, layout), loss_of(layout)
    over_devices = jax.shard_map(
        losses,
        mesh=mesh(AxisType.Auto),
        in_specs=(P(), P("data"), P("data")),
        out_specs=P("data"),
        check_vma=check_vma,
    )
    with jaxcnn.derivatives(derivatives):
        close(in_both_modes(over_devices)(*arrays), in_both_modes(losses)(*arrays))


@pytest.mark.parametrize("engine", ["equations", "patches", "canonical", "xla"])
def test_loops_over_blocks_and_taps_know_what_varies_inside_of_shard_map(
    rng, engine, monkeypatch
):
    monkeypatch.setattr("jaxcnn.engines.memory.BLOCK", 1)  # a block for every image
    x = rng.standard_normal((16, 6, 6, 3)).astype("float32")
    w = rng.standard_normal((3, 3, 3, 4)).astype("float32")

    def loss(w, x):
        y = jaxcnn.conv2d(x, w, layout="NHWC", engine=engine)
        return jnp.sum(jnp.sin(y))

    def over_devices(w, x):
        return jax.shard_map(
            lambda w, x: jax.lax.psum(loss(w, x), "data"),
            mesh=mesh(AxisType.Auto),
            in_specs=(P(), P("data")),
            out_specs=P(),
            check_vma=True,
        )(w, x)

    computed, wanted = (jax.jit(jax.grad(each, (0, 1))) for each in (over_devices, loss))
    close(computed(w, x), wanted(w, x))


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
def test_batch_norm_inside_of_shard_map_is_that_of_the_whole_batch(rng, derivatives):
    x, dx, dy = images(rng), images(rng), images(rng)
    operands = (x, *rng.standard_normal((2, C)).astype("float32"))
    tangents = (dx, *rng.standard_normal((2, C)).astype("float32"))

    def results(operands, tangents, dy, axis_name=None):
        def y_and_statistics(x, w, b):
            y, *statistics = jaxcnn.batch_norm(
                x,
                0 * ones(C),
                ones(C),
                w,
                b,
                training=True,
                axis_name=axis_name,
                derivatives=derivatives,
            )
            return y, statistics

        y, vjp, statistics = jax.vjp(y_and_statistics, *operands, has_aux=True)
        _, moved, _ = jax.jvp(y_and_statistics, operands, tangents, has_aux=True)
        return (y, moved), vjp(dy), statistics

    over_devices = jax.shard_map(
        functools.partial(results, axis_name="data"),
        mesh=mesh(AxisType.Auto),
        in_specs=((P("data"), P(), P()), (P("data"), P(), P()), P("data")),
        out_specs=(P("data"), (P("data"), P(), P()), P()),
        check_vma=True,
    )
    arrays = operands, tangents, dy
    close(jax.jit(over_devices)(*arrays), jax.jit(results)(*arrays))
