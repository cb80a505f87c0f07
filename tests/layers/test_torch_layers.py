"""Activations, losses and normalizations against PyTorch's, in every option they share.

Skipped where PyTorch, of the extra ``bench``, is not installed.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn.layers import activations, losses, normalization

torch = pytest.importorskip("torch")
nn = torch.nn.functional


def to_torch(array):
    """A copy that PyTorch differentiates."""
    return torch.tensor(np.array(array), requires_grad=True)


def of_torch(function, *operands, dy):
    """PyTorch's values and gradients."""
    tensors = [None if each is None else to_torch(each) for each in operands]
    y = function(*tensors)
    given = [each for each in tensors if each is not None]
    gradients = torch.autograd.grad(y, given, torch.tensor(np.array(dy)))
    return [each.detach().numpy() for each in (y, *gradients)]


def of_jaxcnn(function, *operands, dy):
    """Ours, of operands that may be None."""

    @jax.jit
    def computed(operands, dy):
        y, pullback = jax.vjp(function, *operands)
        return y, *pullback(dy)

    return [each for each in computed(operands, dy) if each is not None]


def close(ours, theirs):
    # Float64, a few hundred operations on numbers of order 1.
    chex.assert_trees_all_close(list(ours), list(theirs), rtol=1e-11, atol=1e-12)


def drawn(rng, *shapes):
    return [jnp.asarray(rng.standard_normal(shape)) for shape in shapes]


# --- Activations ----------------------------------------------------------------------

ACTIVATIONS = {
    "relu": (activations.relu, nn.relu),
    "leaky_relu": (activations.leaky_relu, nn.leaky_relu),
    "leaky_relu, given": (
        lambda x: activations.leaky_relu(x, 0.3),
        lambda x: nn.leaky_relu(x, 0.3),
    ),
    "elu": (activations.elu, nn.elu),
    "elu, given": (lambda x: activations.elu(x, 1.5), lambda x: nn.elu(x, 1.5)),
    "elu, negative": (lambda x: activations.elu(x, -0.5), lambda x: nn.elu(x, -0.5)),
    "hard_swish": (activations.hard_swish, nn.hardswish),
    "sigmoid": (activations.sigmoid, nn.sigmoid),
    "tanh": (activations.tanh, nn.tanh),
    "softplus": (activations.softplus, nn.softplus),
    "softplus, given": (
        lambda x: activations.softplus(x, 2, 6),
        lambda x: nn.softplus(x, 2, 6),
    ),
    "silu": (activations.silu, nn.silu),
    "gelu": (activations.gelu, nn.gelu),
    "gelu by tanh": (
        lambda x: activations.gelu(x, "tanh"),
        lambda x: nn.gelu(x, approximate="tanh"),
    ),
    "softmax": (jaxcnn.softmax, lambda x: nn.softmax(x, -1)),
    "log_softmax": (jaxcnn.log_softmax, lambda x: nn.log_softmax(x, -1)),
}
ELEMENTWISE = [name for name in ACTIVATIONS if "softmax" not in name]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_pytorchs(rng, name):
    ours, theirs = ACTIVATIONS[name]
    x, dy = drawn(rng, (5, 7), (5, 7))
    x = 3 * x
    close(of_jaxcnn(ours, x, dy=dy), of_torch(theirs, x, dy=dy))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_kinks_are_pytorchs(name):
    ours, theirs = ACTIVATIONS[name]
    x = jnp.array([-3.0, -0.0, 0.0, 3.0])
    close(of_jaxcnn(ours, x, dy=x + 5), of_torch(theirs, x, dy=x + 5))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_extremes_are_pytorchs_wherever_those_are_finite(name, dtype):
    ours, theirs = ACTIVATIONS[name]
    x = jnp.array([-np.inf, -65504, -1e4, -100, 100, 1e4, 65504, np.inf], dtype)
    dy = jnp.ones_like(x)
    ours, theirs = of_jaxcnn(ours, x, dy=dy), of_torch(theirs, x, dy=dy)
    for our, their in zip(ours, theirs, strict=True):
        # Half a unit in the last place for both. What PyTorch leaves of float16's least,
        # 6e-8, we may round to 0.
        np.testing.assert_allclose(
            np.where(np.isfinite(their), our, 0),
            np.where(np.isfinite(their), their, 0),
            rtol=float(jnp.finfo(dtype).eps),
            atol=1e-7,
        )


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_second_gradients_of_activations_are_pytorchs(rng, name):
    ours, theirs = ACTIVATIONS[name]
    x, dy, direction = drawn(rng, (5, 7), (5, 7), (5, 7))

    def slope(x):
        loss = jax.grad(lambda x: jnp.vdot(jnp.sin(ours(x)), dy))
        return jnp.vdot(loss(x), direction)

    tensor = to_torch(x)
    loss = torch.sin(theirs(tensor)).mul(torch.tensor(np.array(dy))).sum()
    (gradient,) = torch.autograd.grad(loss, tensor, create_graph=True)
    gradient.mul(torch.tensor(np.array(direction))).sum().backward()
    close([jax.grad(slope)(x)], [tensor.grad.numpy()])


# --- Normalization --------------------------------------------------------------------

SIZES = {"N": 4, "C": 6, "D": 3, "H": 2, "W": 5}


def first(function, layout):
    """A function of channels-first tensors, as one of a layout's."""

    def moved(x, *others):
        if layout.endswith("C"):
            return function(x.movedim(-1, 1), *others).movedim(1, -1)
        return function(x, *others)

    return moved


def images(rng, layout):
    """x and dy."""
    shape = [SIZES[letter] for letter in layout]
    x, dy = drawn(rng, shape, shape)
    return 2 * x + 1, dy


every_layout = pytest.mark.parametrize("layout", normalization.LAYOUTS)
images_alone = pytest.mark.parametrize("layout", normalization.LAYOUTS[1:])
GIVEN = ["wb", "w", "", "b"]
scaled_or_shifted = pytest.mark.parametrize("given", GIVEN)


def parameters(rng, given, shape=(6,)):
    w, b = drawn(rng, shape, shape)
    return w if "w" in given else None, b if "b" in given else None


@scaled_or_shifted
@pytest.mark.parametrize("momentum", [0.1, 1])
@pytest.mark.parametrize("training", [True, False])
@every_layout
def test_batch_norm_is_pytorchs(rng, layout, training, momentum, given):
    x, dy = images(rng, layout)
    w, b = parameters(rng, given)
    mean, var = drawn(rng, 6)[0], jnp.asarray(rng.random(6) + 0.5)
    options = {"training": training, "momentum": momentum, "eps": 0.01}
    running = [torch.tensor(np.array(each)) for each in (mean, var)]  # changed in place
    theirs = of_torch(
        first(lambda x, w, b: nn.batch_norm(x, *running, w, b, **options), layout),
        x,
        w,
        b,
        dy=dy,
    )

    def ours(x, w, b):
        return normalization.batch_norm(x, mean, var, w, b, layout=layout, **options)

    close(of_jaxcnn(lambda *operands: ours(*operands)[0], x, w, b, dy=dy), theirs)
    close(ours(x, w, b)[1:], [each.numpy() for each in running])


@pytest.mark.parametrize("momentum", [0.1, 1])
def test_batch_norm_without_running_statistics_is_pytorchs(rng, momentum):
    x, dy = images(rng, "NCHW")
    options = {"training": True, "momentum": momentum}
    theirs = of_torch(lambda x: nn.batch_norm(x, None, None, **options), x, dy=dy)
    close(
        of_jaxcnn(
            lambda x: normalization.batch_norm(x, None, None, **options)[0], x, dy=dy
        ),
        theirs,
    )


@scaled_or_shifted
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_layer_norm_is_pytorchs(rng, count, given):
    x, dy = images(rng, "NCHW")
    shape = x.shape[-count:]
    w, b = parameters(rng, given, shape)
    theirs = of_torch(lambda x, w, b: nn.layer_norm(x, shape, w, b, 0.01), x, w, b, dy=dy)
    for written in (shape, list(shape), shape[0] if count == 1 else shape):

        def ours(x, w, b, written=written):
            return normalization.layer_norm(x, written, w, b, eps=0.01)

        close(of_jaxcnn(ours, x, w, b, dy=dy), theirs)


@pytest.mark.parametrize("given", GIVEN[:-1])  # PyTorch's fails with "b" alone
@pytest.mark.parametrize("groups", [1, 2, 6])
@images_alone
def test_group_norm_is_pytorchs(rng, layout, groups, given):
    x, dy = images(rng, layout)
    w, b = parameters(rng, given)

    def ours(x, w, b):
        return normalization.group_norm(x, groups, w, b, eps=0.01, layout=layout)

    theirs = first(lambda x, w, b: nn.group_norm(x, groups, w, b, 0.01), layout)
    close(of_jaxcnn(ours, x, w, b, dy=dy), of_torch(theirs, x, w, b, dy=dy))


@scaled_or_shifted
@images_alone
def test_instance_norm_is_pytorchs(rng, layout, given):
    x, dy = images(rng, layout)
    w, b = parameters(rng, given)

    def ours(x, w, b):
        return normalization.instance_norm(x, w, b, eps=0.01, layout=layout)

    theirs = first(lambda x, w, b: nn.instance_norm(x, weight=w, bias=b, eps=0.01), layout)
    close(of_jaxcnn(ours, x, w, b, dy=dy), of_torch(theirs, x, w, b, dy=dy))


@pytest.mark.parametrize("training", [True, False])
def test_mixed_precision_is_pytorchs(rng, training):
    x, dy = images(rng, "NCHW")
    wide = [each.astype("float32") for each in drawn(rng, 6, 6, 6)]
    var = jnp.asarray(rng.random(6) + 0.5, "float32")
    x, dy = x.astype("float16"), dy.astype("float16")
    w, b, mean = wide
    running = [torch.tensor(np.array(each)) for each in (mean, var)]
    theirs = of_torch(
        lambda x, w, b: nn.batch_norm(x, *running, w, b, training), x, w, b, dy=dy
    )

    def ours(x, w, b):
        return normalization.batch_norm(x, mean, var, w, b, training=training)

    results = of_jaxcnn(lambda *operands: ours(*operands)[0], x, w, b, dy=dy)
    for our, their in zip(
        (*results, *ours(x, w, b)[1:]),
        (*theirs, *(each.numpy() for each in running)),
        strict=True,
    ):
        assert our.dtype == their.dtype
        # One rounding of each at most; and float32 over 40 terms of order 1.
        eps = float(jnp.finfo(our.dtype).eps)
        np.testing.assert_allclose(our, their, rtol=2 * eps, atol=2e-5)


def test_one_value_for_each_channel_is_refused_as_by_pytorch():
    x = np.zeros((1, 3, 1, 1))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.batch_norm(torch.tensor(x), None, None, training=True)
    with pytest.raises(ValueError, match="every channel has 1 element"):
        normalization.batch_norm(x, None, None, training=True)


# --- Losses ---------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_is_pytorchs(rng, smoothing):
    logits, dloss = drawn(rng, (8, 5), 8)
    labels = rng.integers(0, 5, 8)
    options = {"label_smoothing": smoothing, "reduction": "none"}
    theirs = of_torch(
        lambda z: nn.cross_entropy(z, torch.tensor(labels), **options), logits, dy=dloss
    )
    ours = functools.partial(
        losses.softmax_cross_entropy, labels=labels, label_smoothing=smoothing
    )
    close(of_jaxcnn(ours, logits, dy=dloss), theirs)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["mse_loss", "binary_cross_entropy_with_logits"])
def test_losses_of_each_element_are_pytorchs(rng, name, reduction):
    predictions, dloss = drawn(rng, (3, 5), (3, 5) if reduction == "none" else ())
    targets = jnp.asarray(rng.random((3, 5)))
    ours, theirs = (
        functools.partial(getattr(module, name), reduction=reduction)
        for module in (losses, nn)
    )
    close(
        of_jaxcnn(ours, predictions, targets, dy=dloss),
        of_torch(theirs, predictions, targets, dy=dloss),
    )
