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


@pytest.mark.parametrize("name", ["padding", "output_padding", "groups"])
def test_other_options_may_not_be_traced_either(name):
    def call(a, traced):
        return jaxcnn.conv_transpose2d(a.dy, a.w, **{name: traced})

    with pytest.raises(TypeError, match=f"{name} is .* must be an?"):
        jax.jit(call)(Good(), 1)


def test_a_result_in_float64_wants_that_enabled():
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match=r"preferred_element_type is float64, .*enable_x64"),
    ):
        jaxcnn.conv2d(Good().x, Good().w, preferred_element_type="float64")


def test_a_pair_of_precisions_may_be_a_list():
    jaxcnn.conv2d(Good().x, Good().w, precision=["high", "highest"])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_indices_may_have_fewer_values_than_there_are_places(dtype):
    x, indices = np.ones((1, 1, 2, 2), np.float32), np.array([[[[0, 5], [100, 127]]]])
    y = jaxcnn.max_unpool2d(x, indices.astype(dtype), 2, output_size=(400, 500))
    assert np.flatnonzero(y).tolist() == [0, 5, 100, 127]


def test_an_output_with_more_places_than_indices_name_is_refused():
    x, indices = np.ones((1, 1, 2, 2), np.float32), np.zeros((1, 1, 2, 2), np.int32)
    check(
        # One more than are named, of which x has four.
        lambda: jaxcnn.max_unpool2d(x, indices, 2, stride=(2**15 - 2, 2**16 - 2)),
        ValueError,
        "stride (32766, 65534) … 2147483648 places, more than indices of int32 can name",
    )
