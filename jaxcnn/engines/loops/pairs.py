"""bfloat16 in pairs: two numbers in the place of one float32.

Some processors multiply and add two bfloat16 in each lane where they could one float32, in
the same time, and sum in float32 (AVX512-BF16):

    c += a₀·b₀ + a₁·b₁

So a product of pairs is the same loops, tables and tiles, over half as many terms. What is
summed goes in pairs: in a sum over taps, neighbouring channels, which in x lie side by side
anyhow; in a sum over positions, an image of the batch's first half and one of its second.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn.engines.loops import processor
from jaxcnn.engines.loops.tables import Dtypes
from jaxcnn.layout import Numbers

_FLOAT32 = np.dtype(np.float32)
DTYPES: Dtypes = (_FLOAT32, _FLOAT32, _FLOAT32)
"""Of a tile's arrays: a pair of halves is as long as a float32."""


def are_multiplied(A: Numbers, B: Numbers) -> bool:
    """Whether both are bfloat16, and the processor multiplies pairs of them."""
    return A.dtype == B.dtype == jnp.bfloat16 and processor.multiplies_pairs()


def of_channels(A: Numbers, W: Numbers, layout: str) -> tuple[Numbers, Numbers]:
    """A, with an even number of channels; W (K…, I, O) in pairs of them."""
    if W.shape[-2] % 2:
        A, W = _with_one_more(A, layout.index("C")), _with_one_more(W, W.ndim - 2)
    return A, _pairs(W[..., ::2, :], W[..., 1::2, :])


def of_images(A: Numbers) -> Numbers:
    """(N, …) in pairs of images."""
    if A.shape[0] % 2:
        A = _with_one_more(A, 0)
    return _pairs(*jnp.split(A, 2))


def _with_one_more(A: Numbers, axis: int) -> Numbers:
    return jnp.pad(A, [(0, int(each == axis)) for each in range(A.ndim)])


def _pairs(first: Numbers, second: Numbers) -> Numbers:
    """As 32 bits each; in memory the first comes first."""
    low, high = (
        lax.bitcast_convert_type(half, jnp.uint16).astype(jnp.uint32)
        for half in (first, second)
    )
    return low | high << 16
