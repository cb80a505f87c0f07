"""Bad input: every public function says which argument, what it got and what it wants.

The rows are in :mod:`tests.refusals.arrays` and its like. Whatever can be seen
from shapes, dtypes and options is refused under ``jit`` too.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from tests.refusals.arrays import BAD_ARRAYS, Good
from tests.refusals.convolutions import BAD_CONVOLUTIONS
from tests.refusals.layers import BAD_LAYERS
from tests.refusals.options import BAD_CHOICES, BAD_WINDOWS
from tests.refusals.windows import BAD_POOLINGS

TABLE = {
    **BAD_ARRAYS,
    **BAD_WINDOWS,
    **BAD_CHOICES,
    **BAD_CONVOLUTIONS,
    **BAD_POOLINGS,
    **BAD_LAYERS,
}


def check(call, exception, parts):
    with pytest.raises(exception) as caught:
        call()
    message = str(caught.value)
    for part in parts.split(" … "):
        assert part in message
    # TypeError and ValueError themselves: not JAX's or NumPy's, raised further down.
    assert caught.type is exception


@pytest.mark.parametrize("row", TABLE)
def test_bad_input_is_named_and_explained(row):
    call, exception, parts = TABLE[row]
    check(lambda: call(Good()), exception, parts)


@pytest.mark.parametrize("row", TABLE)
def test_bad_input_is_refused_under_jit_alike(row):
    call, exception, parts = TABLE[row]
    check(lambda: jax.eval_shape(call, Good()), exception, parts)


def test_good_input_is_not_refused():
    # … or the table would prove nothing.
    a = Good()
    jax.eval_shape(jaxcnn.conv2d, a.x, a.w, a.b)
    jax.eval_shape(lambda x, dy: jaxcnn.conv2d_weight_gradient(x, dy, (3, 2)), a.x, a.dy)
    jax.eval_shape(lambda dy, w: jaxcnn.conv2d_input_gradient(dy, w, (5, 6)), a.dy, a.w)
    jax.eval_shape(jaxcnn.dense, a.rows, a.matrix, a.b)
    jax.eval_shape(jaxcnn.softmax_cross_entropy, a.rows, a.labels)


# --- Labels ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "told"),
    [([0, 4], "from 0 to 4"), ([-1, 2], "from -1 to 2"), ([7, -9], "from -9 to 7")],
)
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_labels_out_of_range_are_refused(labels, told, kind):
    check(
        lambda: jaxcnn.softmax_cross_entropy(Good().rows, kind(labels)),
        ValueError,
        f"labels run {told} … logits of shape (2, 4) … 0 to 3",
    )


def test_windows_may_not_be_traced():
    with pytest.raises(TypeError, match=r"stride is .* must be an int or 2 ints"):
        jax.jit(lambda a, s: jaxcnn.conv2d(a.x, a.w, stride=s))(Good(), 2)
