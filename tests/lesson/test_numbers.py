"""Every number of the lesson's page is what jaxcnn computes, to the last digit shown."""

import itertools
import json
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxcnn
from jaxcnn import equations
from jaxcnn.window import Window
from tests.lesson.conftest import LESSON

pytestmark = pytest.mark.slow

SCENES = (
    "window",
    "bias",
    "weights",
    "input",
    "stride",
    "padding",
    "dilation",
    "groups",
    "relu",
    "maximum",
    "average",
    "softmax",
    "network",
)
NETWORK = runpy.run_path(str(LESSON / "network.py"))
DIGITS = json.loads((LESSON / "digits.json").read_text())

READ = """([id, settings, inputs]) => {
    lesson.set(id, settings, inputs);
    const texts = {};
    for (const figure of document.querySelectorAll(`#${id} .numbers figure`)) {
        texts[figure.dataset.array] = [...figure.querySelectorAll("td")].map(
            (cell) => cell.textContent,
        );
    }
    return {
        texts,
        settings: lesson.settings(id),
        arrays: lesson.arrays(id),
        accounts: lesson.accounts(id),
    };
}"""


def entries(rng, name, shape):
    """Quarters, whose sums of products have no rounding."""
    size = int(np.prod(shape))
    if name == "Z":
        return list(rng.integers(-20, 20, size) / 4)
    return [float(each) for each in rng.integers(-40, 40, size) / 4]


def convolved(settings, X, W, dY, b=None):
    options = {
        "stride": settings.get("stride", 1),
        "padding": settings.get("padding", 0),
        "dilation": settings.get("dilation", 1),
    }
    grouped = {**options, "groups": settings.get("groups", 1)}
    K, s, p, d = W.shape[-1], *options.values()
    size = X.shape[1:]
    low = d * (K - 1) - p
    # What is left of the input after the last window belongs to the zeros at the end.
    high = size[0] + d * (K - 1) - low - (s * (dY.shape[1] - 1) + 1)
    return {
        "X": X,
        "W": W,
        "dY": dY,
        "b": b,
        "Xp": jnp.pad(X, [(0, 0), (p, p), (p, p)]),
        "Y": jaxcnn.conv2d(X, W, b, **grouped),
        "dW": jaxcnn.conv2d_weight_gradient(X, dY, kernel_size=K, **grouped),
        "dX": jaxcnn.conv2d_input_gradient(dY, W, input_size=size, **grouped),
        "Wr": W[..., ::-1, ::-1],
        "D": lax.pad(
            dY,
            jnp.zeros((), dY.dtype),
            [(0, 0, 0), (low, high, s - 1), (low, high, s - 1)],
        ),
    }


def rectified(settings, X, dY):
    Y, pull_back = jax.vjp(jaxcnn.relu, X)
    mask = jax.vjp(jaxcnn.relu, X)[1](jnp.ones_like(X))[0]
    return {"X": X, "dY": dY, "Y": Y, "mask": mask, "dX": pull_back(dY)[0]}


def pooled(settings):
    K, s, p = settings["kernel"], settings["stride"], settings["padding"]
    return Window((K, K), (s, s), ((p, p), (p, p)), (1, 1))


def largest(settings, X, dY):
    window = pooled(settings)
    K, s, p = settings["kernel"], settings["stride"], settings["padding"]
    Y, pull_back = jax.vjp(lambda X: jaxcnn.max_pool2d(X, K, stride=s, padding=p), X)
    _, winner = equations.max_pool(X[None], window=window, layout="NCHW")
    return {"X": X, "dY": dY, "Y": Y, "winner": winner[0], "dX": pull_back(dY)[0]}


def averaged(settings, X, dY):
    K, s, p = settings["kernel"], settings["stride"], settings["padding"]

    def pool(X):
        return jaxcnn.avg_pool2d(X, K, stride=s, padding=p, count_include_pad=False)

    Y, pull_back = jax.vjp(pool, X)
    ones = jnp.ones((1, *X.shape))
    inside = equations.average_pool(ones, window=pooled(settings), layout="NCHW")[0]
    n = (inside * K * K).round()
    share = dY / n
    return {"X": X, "dY": dY, "Y": Y, "n": n, "share": share, "dX": pull_back(dY)[0]}


def softened(settings, Z):
    label = jnp.asarray(settings["label"])
    L, dZ = jax.value_and_grad(jaxcnn.softmax_cross_entropy)(Z, label)
    T = jax.nn.one_hot(label, len(Z), dtype=Z.dtype)
    E = jnp.exp(Z - Z.max())
    return {"Z": Z, "E": E, "P": jaxcnn.softmax(Z), "T": T, "L": L[None], "dZ": dZ}


def networked(settings, X, W, b, V, c):
    label = DIGITS["learned"][settings["picture"]]["label"]
    made = {"X": X, "W": W, "b": b, "V": V, "c": c}
    made["Y"], back_conv = jax.vjp(
        lambda X, W, b: jaxcnn.conv2d(X, W, b, stride=2, padding=1), X, W, b
    )
    made["R"], back_relu = jax.vjp(jaxcnn.relu, made["Y"])
    made["M"], back_pool = jax.vjp(lambda R: jaxcnn.max_pool2d(R, 2), made["R"])
    made["Z"], back_dense = jax.vjp(
        lambda M, V, c: jaxcnn.dense(M.reshape(1, -1), V, c)[0], made["M"], V, c
    )
    made |= softened({"label": label}, made["Z"])
    made["dM"], made["dV"], made["dc"] = back_dense(made["dZ"])
    (made["dR"],) = back_pool(made["dM"])
    (made["dY"],) = back_relu(made["dR"])
    made["dX"], made["dW"], made["db"] = back_conv(made["dY"])

    def loss(parameters):
        return jaxcnn.softmax_cross_entropy(
            NETWORK["logits"](parameters, X), jnp.asarray(label)
        )

    whole = jax.grad(loss)([W, b, V, c])
    for name, gradient in zip("WbVc", whole, strict=True):
        np.testing.assert_allclose(made[f"d{name}"], gradient, rtol=1e-12, atol=1e-14)
    return made


COMPUTED = {
    "bias": lambda settings, b, dY: {
        "b": b,
        "dY": dY,
        "db": jaxcnn.conv2d_bias_gradient(dY),
    },
    "relu": rectified,
    "maximum": largest,
    "average": averaged,
    "softmax": softened,
    "network": networked,
}
"""What jaxcnn computes of a scene's settings and inputs; the other scenes convolve."""


def number(text):
    return float(text.replace("−", "-").replace("∞", "inf"))


def settings_of(scene):
    """All combinations of the sliders' values; of the network each digit once."""
    sliders = scene["sliders"]
    if "picture" in sliders:
        return [{"picture": each} for each in sliders["picture"]]
    return [
        dict(zip(sliders, values, strict=True))
        for values in itertools.product(*sliders.values())
    ]


def test_these_are_all_scenes(page):
    assert tuple(page.evaluate("Object.keys(lesson.scenes)")) == SCENES


@pytest.mark.parametrize("scene_id", SCENES)
def test_every_array_is_what_jaxcnn_computes(page, rng, scene_id):
    scene = page.evaluate("id => lesson.scenes[id]", scene_id)
    digits = 3 if scene_id == "network" else 2
    compared = 0
    for wanted in settings_of(scene):
        page.evaluate("([id, settings]) => lesson.set(id, settings)", [scene_id, wanted])
        shapes = page.evaluate("id => lesson.inputs(id)", scene_id)
        kept = {"X", "W", "b", "V", "c"} if scene_id == "network" else set()
        inputs = {
            name: each["data"] if name in kept else entries(rng, name, each["shape"])
            for name, each in shapes.items()
        }
        if scene_id in ("maximum", "relu"):  # ties, and zeros
            inputs["X"] = [float(round(each / 4)) for each in inputs["X"]]
        read = page.evaluate(READ, [scene_id, wanted, inputs])
        given = {
            name: jnp.asarray(data, float).reshape(shapes[name]["shape"])
            for name, data in inputs.items()
        }
        expected = COMPUTED.get(scene_id, convolved)(read["settings"], **given)
        for name in scene["shows"]:
            array, texts = read["arrays"][name], read["texts"][name]
            right = np.asarray(expected[name], float)
            where = f"{name} for {read['settings']}"
            assert array["shape"] == list(right.shape), where
            for made in array["data"], read["accounts"].get(name, array["data"]):
                np.testing.assert_allclose(
                    made, right.ravel(), rtol=1e-12, atol=1e-12, err_msg=where
                )
            shown = [number(text) for text in texts]
            np.testing.assert_allclose(
                shown, right.ravel(), rtol=0, atol=0.5000001 * 10**-digits, err_msg=where
            )
            compared += right.size
    assert compared > 50


@pytest.mark.parametrize("scene_id", SCENES[:-1])
def test_the_loop_ends_in_the_results_and_lights_one_line_at_each_step(page, scene_id):
    scene = page.locator(f"#{scene_id}")
    lights = page.evaluate("id => lesson.lights(id)", scene_id)
    assert lights and all(count == 1 for *_, count in lights), lights
    results = scene.locator(".numbers").inner_text()
    step = scene.get_by_role("button", name="Step", exact=True)
    seen = []
    for _ in lights:
        step.click()
        line = scene.locator("code.alight")
        assert line.count() == 1
        seen.append(line.inner_text())
    assert [line for _, line, _ in lights] == [
        line if line in text else text
        for (_, line, _), text in zip(lights, seen, strict=True)
    ]
    assert scene.locator(".numbers").inner_text() == results


def test_steps_of_training_are_those_of_jaxcnn(page):
    scene = page.locator("#network")
    inputs = page.evaluate("lesson.inputs('network')")
    parameters = [
        jnp.asarray(inputs[name]["data"], float).reshape(inputs[name]["shape"])
        for name in "WbVc"
    ]
    for digit in DIGITS["learned"][:7]:
        scene.get_by_role("button", name="One step").click()
        image = jnp.asarray(digit["pixels"], float).reshape(1, 8, 8) / 16
        parameters = NETWORK["step"](parameters, image, jnp.asarray(digit["label"]), 0.1)
    for name, right in zip("WbVc", parameters, strict=True):
        made = page.evaluate("n => lesson.inputs('network')[n].data", name)
        np.testing.assert_allclose(made, right.ravel(), rtol=1e-12, atol=1e-14)


def test_the_network_learns_to_name_every_digit(open_page):
    page = open_page(reduced_motion="reduce")
    scene = page.locator("#network")
    scene.get_by_role("button", name="Run until it knows them").click()
    status = scene.locator(".training-status").inner_text()
    assert "15 of 15 digits are named right" in status
    assert int(status.split("and ")[1].split()[0]) >= 27  # of 30 that it never saw
