"""What jaxcnn is compared with: three kinds of reference, each independent of the others.

    numpy_loops  the equations, with a Python loop for every index
    lax_calls    XLA's convolution and pooling (the names with ``lax_``)
    differences  central differences in float64

of forward mode, what it agrees with:

    modes        autodiff, and reverse mode

and, for the random cases, what they mean to other libraries:

    with_xla     ``jax.lax`` and its automatic differentiation
    with_torch   PyTorch
"""

from tests.oracles.differences import (
    along,
    central_difference,
)
from tests.oracles.lax_calls import (
    lax_average_pool,
    lax_convolution,
    lax_max_pool,
    lax_padding,
    lax_small_cnn,
)
from tests.oracles.modes import in_both_modes
from tests.oracles.numpy_loops import (
    average_pool,
    bias_gradient,
    channels_first,
    convolution,
    fed_at,
    first_maximum,
    in_layout,
    input_gradient,
    is_inside,
    max_pool,
    met_at,
    number_within,
    output_size,
    outputs_first,
    patches,
    positions,
    seen_from,
    weight_gradient,
    weight_letters,
    weights_in_layout,
)

__all__ = [
    "along",
    "average_pool",
    "bias_gradient",
    "central_difference",
    "channels_first",
    "convolution",
    "fed_at",
    "first_maximum",
    "in_both_modes",
    "in_layout",
    "input_gradient",
    "is_inside",
    "lax_average_pool",
    "lax_convolution",
    "lax_max_pool",
    "lax_padding",
    "lax_small_cnn",
    "max_pool",
    "met_at",
    "number_within",
    "output_size",
    "outputs_first",
    "patches",
    "positions",
    "seen_from",
    "weight_gradient",
    "weight_letters",
    "weights_in_layout",
]
