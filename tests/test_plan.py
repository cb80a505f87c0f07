"""The plan: every function has an engine, and every problem is compiled once."""

import dataclasses
import functools
import inspect
import types

import jax.numpy as jnp
import pytest

import jaxcnn
from jaxcnn import equations, plan
from jaxcnn.window import Window

WINDOW = Window((2, 2), (1, 1), ((0, 0), (0, 0)), (1, 1))
PROBLEM = plan.Problem(WINDOW, (3, 3), "NCHW")


@pytest.mark.parametrize("name", plan.STATIC_ARGUMENTS)
@pytest.mark.parametrize("engine", ["auto", *plan.ENGINES])
def test_the_plan_has_an_engine_for_every_function(name, engine):
    problem = dataclasses.replace(PROBLEM, engine=engine)
    chosen = plan.engine_for(name, problem)
    assert engine in ("auto", chosen)
    function = getattr(plan.ENGINES[chosen], name)
    # What the plan tells it is all that it wants to know besides its arrays.
    wanted = inspect.signature(function).parameters.values()
    keywords = {each.name for each in wanted if each.kind is each.KEYWORD_ONLY}
    assert set(plan.STATIC_ARGUMENTS[name]) == keywords


def test_the_equations_are_an_engine():
    assert plan.ENGINES["equations"] is equations
    assert "auto" not in plan.ENGINES


def test_a_problem_is_hashable_and_equal_to_its_like():
    like = plan.Problem(dataclasses.replace(WINDOW), (3, 3), "NCHW")
    assert like is not PROBLEM
    assert len({like, PROBLEM, dataclasses.replace(like, groups=2)}) == 2


def test_a_problem_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROBLEM.groups = 2


@pytest.fixture
def counting_engine(monkeypatch, request):
    """An engine that counts how often its functions are traced; another in each test."""
    counts = dict.fromkeys(plan.STATIC_ARGUMENTS, 0)

    def counted(name, *operands, **known):
        counts[name] += 1
        return getattr(equations, name)(*operands, **known)

    engine = {name: functools.partial(counted, name) for name in counts}
    monkeypatch.setitem(plan.ENGINES, request.node.name, types.SimpleNamespace(**engine))
    return request.node.name, counts


def test_repeated_eager_calls_compile_once(counting_engine):
    engine, counts = counting_engine
    x, w = jnp.ones((1, 2, 3, 4)), jnp.ones((2, 2, 2, 2))
    for number in range(3):
        jaxcnn.conv2d(x + number, w, engine=engine)
        jaxcnn.max_pool2d(x + number, [2, 1], engine=engine)
    assert counts == {**dict.fromkeys(counts, 0), "forward": 1, "max_pool": 1}


def test_another_problem_is_compiled_anew(counting_engine):
    engine, counts = counting_engine
    x, w = jnp.ones((1, 2, 3, 4)), jnp.ones((2, 2, 2, 2))
    jaxcnn.conv2d(x, w, engine=engine)
    jaxcnn.conv2d(x, w, engine=engine, stride=2)
    jaxcnn.conv2d(x.astype("float32"), w.astype("float32"), engine=engine)
    assert counts["forward"] == 3


def test_the_named_engine_computes_and_no_other(monkeypatch):
    def forward(x, w, **known):
        return jnp.full((1, 1, 2, 2), 7.0)

    monkeypatch.setitem(plan.ENGINES, "seven", types.SimpleNamespace(forward=forward))
    x, w = jnp.ones((1, 1, 3, 3)), jnp.ones((1, 1, 2, 2))
    assert (jaxcnn.conv2d(x, w, engine="seven") == 7).all()
    assert (jaxcnn.conv2d(x, w, engine="equations") == 4).all()
    assert (jaxcnn.conv2d(x, w) == 4).all()
