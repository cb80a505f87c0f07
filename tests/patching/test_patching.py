"""jaxcnn in the place of JAX's functions: who is reached, for how long, and who is not.

That jaxcnn answered shows in what it was asked for, that JAX did in that it was asked for
nothing. What the functions compute is proved in test_drop_in.
"""

import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.lax import conv_general_dilated, reduce_window  # as others do, before the patch

import jaxcnn
from jaxcnn import originals
from jaxcnn.patching import patch as patching
from jaxcnn.patching.patch import patch_jax, patched_jax, unpatch_jax
from tests import asked, precision

X = np.random.default_rng(0).standard_normal((2, 6, 5, 3))
W = np.random.default_rng(1).standard_normal((3, 3, 3, 4))
OPTIONS = {
    "window_strides": (2, 1),
    "padding": "SAME",
    "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
}
OWN_CODE = [function.__code__ for function in originals.EXCHANGED]


@pytest.fixture(autouse=True)
def given_back():
    """Every test begins and ends with JAX's own functions."""
    yield
    unpatch_jax()
    assert [function.__code__ for function in originals.EXCHANGED] == OWN_CODE


def convolution(x, w):
    return lax.conv_general_dilated(x, w, **OPTIONS)


def loss(x, w):
    return jnp.sin(convolution(x, w)).sum()


def maxima(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1))


def is_served(function, *operands):
    """Whether jaxcnn computed anything of it."""
    with asked.noted() as sums:
        function(*operands)
    return bool(sums)


ROUNDING = 1e-11
"""Float64, tens to hundreds of terms of order 1 in another order, and sines of them."""


def close(ours, theirs, rounding=ROUNDING):
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=rounding)


# --- Who is reached -------------------------------------------------------------------


def with_a_default(x, w, function=lax.conv_general_dilated):
    return function(x, w, **OPTIONS)


REACHED = {
    "by its name": convolution,
    "from before": lambda x, w: conv_general_dilated(x, w, **OPTIONS),
    "as a default": with_a_default,
    "by position": lambda x, w: lax.conv_general_dilated(x[:, :3], w, (1, 1), "SAME"),
    "lax.conv": lambda x, w: lax.conv(x[..., :3].transpose(0, 3, 1, 2), w, (1, 1), "SAME"),
    "lax.conv_transpose": lambda x, w: lax.conv_transpose(x, w, (2, 2), "SAME"),
    "lax patches": lambda x, w: lax.conv_general_dilated_patches(
        x.transpose(0, 3, 1, 2), (2, 2), (1, 1), "VALID"
    ),
    "jnp.convolve": lambda x, w: jnp.convolve(x[0, 0, :, 0], w[0, 0, 0]),
    "windows": lambda x, w: maxima(x),
    "windows from before": lambda x, w: reduce_window(x, 0.0, lax.add, (1, 2, 2, 1)),
}


@pytest.mark.parametrize("way", REACHED)
def test_every_way_to_call_the_functions_is_reached(way):
    function = REACHED[way]
    x, w = jnp.asarray(X), jnp.asarray(W)
    if way == "by position":
        x = x.transpose(0, 3, 1, 2)
    assert not is_served(function, x, w)
    theirs = function(x, w)
    with patched_jax():
        assert is_served(function, x, w)
        close(function(x, w), theirs)
    assert not is_served(function, x, w)


def test_signatures_stay_what_they_are():
    before = [inspect.signature(function) for function in originals.EXCHANGED]
    with patched_jax():
        assert [inspect.signature(function) for function in originals.EXCHANGED] == before
        assert lax.conv_general_dilated.__name__ == "conv_general_dilated"


def test_gradients_to_second_order_are_those_of_jax():
    def second(x, w):
        slopes = jax.grad(loss, (0, 1))(x, w)
        return jnp.vdot(slopes[0], X) + jnp.vdot(slopes[1], W)

    def all_of(x, w):
        return loss(x, w), jax.grad(loss, (0, 1))(x, w), jax.grad(second, (0, 1))(x, w)

    theirs = jax.jit(all_of)(X, W)
    with patched_jax():
        assert is_served(jax.jit(all_of), X, W)
        ours = jax.jit(all_of)(X, W)
    close(ours[:2], theirs[:2])
    close(ours[2], theirs[2], precision.of_xlas_maxima(ROUNDING, order=2))


def test_a_mesh_of_devices_is_served():
    mesh = jax.make_mesh((1,), ("b",), axis_types=(jax.sharding.AxisType.Auto,))
    over_images = jax.shard_map(
        convolution,
        mesh=mesh,
        in_specs=(jax.P("b"), jax.P()),
        out_specs=jax.P("b"),
    )

    def gradients(x, w):
        return jax.grad(lambda x, w: jnp.sin(over_images(x, w)).sum(), (0, 1))(x, w)

    with patched_jax():
        assert is_served(jax.jit(gradients), X, W)
        close(jax.jit(gradients)(X, W), jax.jit(jax.grad(loss, (0, 1)))(X, W))


def test_a_symbolic_batch_is_exported():
    from jax import export

    def network(x, w):
        return maxima(convolution(x, w))

    symbolic = jax.ShapeDtypeStruct(export.symbolic_shape("b, 6, 5, 3"), X.dtype)
    theirs = jax.jit(network)(X, W)
    with patched_jax():
        export_it = export.export(jax.jit(network))
        assert is_served(export_it, symbolic, W)
        exported = export_it(symbolic, W)
    close(exported.call(X, W), theirs)


# --- For how long ---------------------------------------------------------------------


def counted(function):
    """The function, and the list to which each of its tracings adds an entry."""
    tracings = []

    def counting(*operands):
        tracings.append(None)
        return function(*operands)

    return counting, tracings


def scanned(function):
    def summed(x, w):
        def step(total, _):
            return total + function(x, w), None

        return lax.scan(step, 0.0, None, length=2)[0]

    return summed


TRANSFORMED = {
    "jit": jax.jit,
    "grad of jit": lambda function: jax.grad(jax.jit(function), (0, 1)),
    "jit of grad": lambda function: jax.jit(jax.grad(function, (0, 1))),
    "checkpoint": lambda function: jax.jit(jax.grad(jax.checkpoint(function), (0, 1))),
    "scan": lambda function: jax.jit(scanned(function)),
    "grad of scan": lambda function: jax.jit(jax.grad(scanned(function), (0, 1))),
}


@pytest.mark.parametrize("way", TRANSFORMED)
def test_what_was_compiled_keeps_its_meaning(way):
    function, tracings = counted(loss)
    transformed = TRANSFORMED[way](function)
    theirs = transformed(X, W)
    of_jax = len(tracings)
    with patched_jax():
        assert is_served(transformed, X, W)
        close(transformed(X, W), theirs)
    of_both = len(tracings)
    assert of_both > of_jax  # traced anew under the patch, and then not once more:
    assert not is_served(transformed, X, W)
    np.testing.assert_array_equal(
        *map(jnp.concatenate, (flat(transformed(X, W)), flat(theirs)))
    )
    with patched_jax():
        transformed(X, W)
    assert len(tracings) == of_both


def flat(tree):
    return [jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)]


def test_patch_and_unpatch_do_what_they_say(capsys):
    patch_jax()
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert "jax.lax.conv_general_dilated and jax.lax.reduce_window" in said.err
    assert "unpatch_jax()" in said.err
    assert is_served(convolution, X, W) and is_served(maxima, X)
    unpatch_jax()
    assert not is_served(convolution, X, W) and not is_served(maxima, X)
    patch_jax(verbose=False)
    with patched_jax():
        pass
    unpatch_jax()
    assert capsys.readouterr() == ("", "")


@contextmanager
def patched_everywhere():
    patch_jax(verbose=False)
    try:
        yield
    finally:
        unpatch_jax()


@pytest.mark.parametrize("outer", [patched_jax, patched_everywhere])
@pytest.mark.parametrize("inner", [patched_jax, patched_everywhere])
def test_patches_may_lie_within_patches(outer, inner):
    with outer():
        with inner():
            assert is_served(convolution, X, W)
        # unpatch_jax() ends what patch_jax() began, however often it was called.
        assert is_served(convolution, X, W) is not (outer == inner == patched_everywhere)
    assert not is_served(convolution, X, W)


def test_unpatching_what_is_not_patched_does_nothing():
    unpatch_jax()
    with patched_jax():
        unpatch_jax()
        assert is_served(convolution, X, W)
    assert not is_served(convolution, X, W)


def test_an_exception_ends_the_patch():
    with pytest.raises(ZeroDivisionError), patched_jax():
        raise ZeroDivisionError
    assert not is_served(convolution, X, W)


@pytest.mark.parametrize(
    ("patch", "others_are_served"), [(patched_jax, False), (patched_everywhere, True)]
)
def test_other_threads_are_patched_by_patch_jax_alone(patch, others_are_served):
    with patch(), ThreadPoolExecutor(1) as others:
        assert others.submit(is_served, convolution, X, W).result() == others_are_served
        assert is_served(convolution, X, W)


def test_threads_patch_and_unpatch_side_by_side():
    compiled = jax.jit(convolution)
    theirs, begin = compiled(X, W), threading.Barrier(6)

    def work(number):
        patch = patched_jax if number % 2 else nullcontext
        begin.wait()
        for _ in range(20):
            with patch():
                sums = asked.traced(convolution, X, W)
                assert len(sums) == number % 2
                close(compiled(X, W), theirs)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))


# --- Who is not -----------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["xla", "canonical"])
def test_engines_compute_with_what_is_jaxs_own(engine):
    # What an engine asks of JAX does not come back to jaxcnn; nor does what JAX's own
    # transposition, within an engine, asks of its convolution by name: it says how the
    # result is to be sharded, which jaxcnn leaves to JAX.
    gradients = jax.grad(
        lambda x, w: jnp.sin(jaxcnn.conv2d(x, w, layout="NHWC", engine=engine)).sum(),
        (0, 1),
    )
    plain, theirs = asked.traced(gradients, X, W), jax.jit(gradients)(X, W)
    with patched_jax():
        patched, ours = asked.traced(gradients, X, W), jax.jit(gradients)(X, W)
    names = [each.name for each in patched]
    assert names == [each.name for each in plain]
    assert sorted(names) == ["forward", "input_gradient", "weight_gradient"]
    close(ours, theirs)


def test_what_is_left_to_jax_is_differentiated_under_the_patch():
    # Complex numbers: JAX's own rules ask for convolutions by name, to any order.
    x, w = (X[0] + 1j * X[1]).swapaxes(1, 2), W[0] - 2j * W[1]

    def of_complex(x):
        return jnp.sum(jnp.abs(lax.conv(x, w, (1,), "VALID")) ** 2)

    def slope(x):
        return jnp.sum(jnp.abs(jax.grad(of_complex)(x)) ** 2)

    theirs = jax.jit(jax.value_and_grad(slope))(x)
    with patched_jax():
        ours = jax.jit(jax.value_and_grad(slope))(x)
    for one, other in zip(ours, theirs, strict=True):
        # Float64; the numbers are of order 1000, and sums of such.
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-9)


def test_integers_are_left_to_jax_under_the_patch():
    x, w = (np.round(10 * each).astype("int32") for each in (X, W))
    theirs = convolution(x, w)
    with patched_jax():
        assert not is_served(convolution, x, w)
        np.testing.assert_array_equal(convolution(x, w), theirs)


SMALL_X, SMALL_W = X[:1, :, :, :2], W[:2, :2, :2, :1]
FORWARD = {
    "jvp": lambda function: partial(jax.jvp, function, (SMALL_W,), (SMALL_W,)),
    "linearize": lambda function: lambda: jax.linearize(function, SMALL_W)[1](SMALL_W),
    "jacfwd": lambda function: partial(jax.jacfwd(function), SMALL_W),
    "hessian": lambda function: partial(jax.hessian(lambda w: function(w).sum()), SMALL_W),
}


@pytest.mark.parametrize("mode", FORWARD)
def test_forward_mode_is_that_of_jax(mode):
    call = FORWARD[mode](lambda w: jnp.sin(maxima(convolution(SMALL_X, w))))
    theirs = jax.jit(call)()
    with patched_jax():
        assert is_served(call)
        close(jax.jit(call)(), theirs)
        with jaxcnn.derivatives("autodiff"):
            assert not is_served(call)
            close(jax.jit(call)(), theirs)


def test_functions_that_jaxcnn_does_not_know_are_not_exchanged(monkeypatch):
    def conv_general_dilated(lhs, rhs, window_strides, novelty=None):
        pass

    code = conv_general_dilated.__code__
    monkeypatch.setattr(patching, "_CODE", {conv_general_dilated: lambda: None})
    for patch in (patched_everywhere, patched_jax):
        with pytest.raises(RuntimeError, match=r"has the parameters .*novelty"), patch():
            pass
    assert conv_general_dilated.__code__ is code
    conv_general_dilated = jax.jit(conv_general_dilated)
    monkeypatch.setattr(patching, "_CODE", {conv_general_dilated: lambda: None})
    with pytest.raises(RuntimeError, match="no plain function"):
        patch_jax()
    assert not is_served(convolution, X, W)
