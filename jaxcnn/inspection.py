"""Looking into a model: its layers, what they cost, and what they make of an image.

A model of :mod:`jaxcnn.models` gives the result of each layer a name, by
:func:`jax.ad_checkpoint.checkpoint_name`, and the layer's parameters are under the same
name. That is all that is needed here, so a model of your own can do likewise; policies of
:func:`jax.checkpoint` know layers by these names, too.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.typing import DTypeLike
from jaxtyping import Array

from jaxcnn.layout import channels_last
from jaxcnn.models import STATISTICS, Images, Model, Parameters


def activations(model: Model, parameters: Parameters, images: Images) -> dict[str, Array]:
    """What every named layer makes of images, in the order of computation.

    Args:
      model: whose ``apply`` names values, outside of any ``jit`` and loop.
      parameters, images: what ``apply`` takes.

    Returns:
      For each name its value; of a name given twice, the last one.

    Cost: that of ``apply``, and it is traced anew at each call.

    >>> from jaxcnn.models import lenet5
    >>> model = lenet5(image_size=8)
    >>> values = activations(model, model.init(jax.random.key(0)), jnp.ones((2, 8, 8, 1)))
    >>> values["conv1"].shape, values["pool1"].shape
    ((2, 8, 8, 6), (2, 4, 4, 6))
    """
    traced = jax.make_jaxpr(model.apply)(parameters, images)
    names, variables = _named(traced)
    up_to_there = ClosedJaxpr(traced.jaxpr.replace(outvars=variables), traced.consts)
    values = jaxpr_as_fun(up_to_there)(*jax.tree.leaves((parameters, images)))
    return dict(zip(names, values, strict=True))


class Layer(NamedTuple):
    """What there is to know of a layer before it sees an image.

    Attributes:
      name: of the layer.
      shape: of what it makes of one image, or None for parameters of no named layer.
      parameters: how many numbers are trained.
      multiply_adds: for one image, those of its convolution or its matrix product.
    """

    name: str
    shape: tuple[int, ...] | None
    parameters: int
    multiply_adds: int


def layers(
    model: Model, image_shape: Sequence[int], dtype: DTypeLike = jnp.float32
) -> list[Layer]:
    r"""The named layers of a model, and last the parameters that belong to none.

    A kernel of :math:`K_h K_w C_{in}/g` by :math:`C_{out}` numbers meets an image at each
    of :math:`H_{out} W_{out}` positions, and a matrix meets it once: the multiply-adds are
    the numbers in the kernel times the positions of the result.

    Args:
      model: whose ``apply`` names its layers as its parameters are named.
      image_shape: ``(H, W, C)`` or ``(C, H, W)``, as the model's layout says.
      dtype: of the images.

    Returns:
      A :class:`Layer` for each. Nothing is computed.

    >>> from jaxcnn.models import lenet5
    >>> for layer in layers(lenet5(image_size=28), (28, 28, 1))[:2]:
    ...     print(*layer)
    conv1 (28, 28, 6) 156 117600
    pool1 (14, 14, 6) 0 0
    """
    parameters = jax.eval_shape(model.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *image_shape), dtype)
    names, variables = _named(jax.make_jaxpr(model.apply)(parameters, image))
    shapes = {
        name: variable.aval.shape[1:]
        for name, variable in zip(names, variables, strict=True)
    }
    of_layer = {name: [] for name in shapes}
    for path, leaf in jax.tree_util.tree_leaves_with_path(parameters):
        *nodes, last = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        if last in STATISTICS:
            continue
        prefixes = ["/".join(nodes[:end]) for end in range(len(nodes), 0, -1)]
        owner = next((name for name in prefixes if name in shapes), "/".join(nodes))
        of_layer.setdefault(owner, []).append(leaf.shape)
    return [
        _layer(name, shapes.get(name), of_layer[name], model.layout) for name in of_layer
    ]


def summary(
    model: Model, image_shape: Sequence[int], dtype: DTypeLike = jnp.float32
) -> str:
    """The layers of a model as a table: shapes, parameters and multiply-adds.

    Arguments are those of :func:`layers`.

    >>> from jaxcnn.models import small_cnn
    >>> print(summary(small_cnn(image_size=8), (8, 8, 1)))
    layer    result    parameters  multiply-adds
    conv1    8×8×32           320         18,432
    pool1    4×4×32
    conv2    4×4×64        18,496        294,912
    pool2    2×2×64
    dense1   256           65,792         65,536
    dense2   10             2,570          2,560
    total                  87,178        381,440
    """
    of_model = layers(model, image_shape, dtype)
    total = Layer(
        "total",
        None,
        sum(layer.parameters for layer in of_model),
        sum(layer.multiply_adds for layer in of_model),
    )
    rows = [("layer", "result", "parameters", "multiply-adds")]
    for layer in [*of_model, total]:
        shape = "×".join(map(str, layer.shape or ()))
        parameters, multiply_adds = (f"{n:,}" if n else "" for n in layer[2:])
        rows.append((layer.name, shape, parameters, multiply_adds))
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(
        f"{name:{first}}   {shape:{second}}  {parameters:>10}  {multiply_adds:>13}".rstrip()
        for name, shape, parameters, multiply_adds in rows
    )


def _named(traced: ClosedJaxpr) -> tuple[list[str], list[Any]]:
    """The names given in a traced function, and for each the variable that has it."""
    equations = [e for e in traced.jaxpr.eqns if e.primitive.name == "name"]
    variables = {e.params["name"]: e.outvars[0] for e in equations}
    return list(variables), list(variables.values())


def _layer(
    name: str,
    shape: tuple[int, ...] | None,
    of_parameters: list[tuple[int, ...]],
    layout: str,
) -> Layer:
    count = sum(map(math.prod, of_parameters))
    kernels = [math.prod(each) for each in of_parameters if len(each) >= 2]
    multiply_adds = 0
    if shape is not None:
        channels_first = len(shape) == 3 and not channels_last(layout)
        positions = shape[1:] if channels_first else shape[:-1]
        multiply_adds = math.prod(positions) * sum(kernels)
    return Layer(name, shape, count, multiply_adds)
