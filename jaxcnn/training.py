"""Training as pure functions: a state, one step, a whole epoch, and evaluation.

The gradients come from the hand-written rules of the operations that a model is made of;
the optimizer is any of optax's. A data set lives on the device, and an epoch is one
compiled ``lax.scan`` over its shuffled batches.

On several devices the same functions run inside ``shard_map``: with the name of the mesh
axis along which a batch is spread, each device takes its part of every batch, and all
arrive at the same next state, which is that of one device to within rounding::

    epoch = partial(train_epoch, …, axis_name="batch")
    epoch = jax.shard_map(epoch, mesh=mesh, in_specs=P(), out_specs=P())
    state, metrics = jax.jit(epoch)(state, images, labels, key)
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from jaxcnn.layers.losses import softmax_cross_entropy
from jaxcnn.models import Images, Logits, Model, Parameters, with_statistics_of

Labels = Int[Array, " B"]
Image = Shaped[Array, "_ _ _"]
"""One image, laid out as the model's layout says."""
Augment = Callable[[Key[Array, ""], Image], Image]
Report = Callable[[Int[Array, ""], Float[Array, ""], Float[Array, ""]], None]


class TrainingState(NamedTuple):
    """All that changes while a model trains: a pytree.

    Attributes:
      parameters: of the model.
      optimizer_state: of the optax optimizer.
      step: how many steps have been taken.
      average: the moving average of the parameters, or None where there is none.
    """

    parameters: Parameters
    optimizer_state: PyTree
    step: Int[Array, ""]
    average: Parameters | None = None

    @property
    def trained(self) -> Parameters:
        """What to evaluate and to keep: the average where there is one."""
        return self.parameters if self.average is None else self.average


class Metrics(NamedTuple):
    """How well a batch, or each batch of an epoch, was classified.

    Attributes:
      loss: the mean softmax cross-entropy.
      accuracy: the fraction of examples whose largest logit is the label's.
    """

    loss: Float[Array, "..."]
    accuracy: Float[Array, "..."]


class Evaluation(NamedTuple):
    """How well a data set was classified.

    Attributes:
      metrics: over the whole set.
      predictions: the class of the largest logit, for every example.
    """

    metrics: Metrics
    predictions: Int[Array, " examples"]


def initial_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    *,
    averaged: bool = False,
) -> TrainingState:
    """Fresh parameters and a fresh optimizer, and, if ``averaged``, an average of them.

    >>> from jaxcnn.models import lenet5
    >>> state = initial_state(lenet5(8), optax.sgd(0.1), jax.random.key(0))
    >>> state.step
    Array(0, dtype=int32)
    """
    parameters = model.init(key)
    average = jax.tree.map(jnp.copy, parameters) if averaged else None
    return TrainingState(parameters, optimizer.init(parameters), jnp.int32(0), average)


def loss_and_accuracy(
    logits: Logits, labels: Labels, label_smoothing: float = 0.0
) -> Metrics:
    """The metrics of one batch, its loss with labels smoothed so much."""
    losses = softmax_cross_entropy(logits, labels, label_smoothing=label_smoothing)
    loss = jnp.mean(losses)
    right = jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels
    return Metrics(loss, jnp.mean(right.astype(loss.dtype)))


@partial(
    jax.jit,
    static_argnames=(
        "model",
        "optimizer",
        "label_smoothing",
        "average_decay",
        "axis_name",
    ),
)
def train_step(
    state: TrainingState,
    images: Images,
    labels: Labels,
    *,
    model: Model,
    optimizer: optax.GradientTransformation,
    label_smoothing: float = 0.0,
    average_decay: float = 0.999,
    axis_name: str | None = None,
) -> tuple[TrainingState, Metrics]:
    r"""One step down the gradient of one batch's loss; compiled.

    Args:
      state: where training is.
      images, labels: the batch.
      model, optimizer: static. It compiles anew for another model, and for an optimizer
        that is not the same object.
      label_smoothing: of the loss, as for :func:`jaxcnn.softmax_cross_entropy`; static.
      average_decay: d, static: where the state has an average ā, it becomes
        d' ā + (1 − d') θ with the new parameters θ, and d' the smaller of d and
        (1 + t)/(10 + t), so that the first of t steps are soon forgotten.
      axis_name: inside ``shard_map``, the mesh axis along which the batch is spread:
        ``images`` and ``labels`` are then a device's part of it; static.

    Returns:
      The next state, and the metrics of the batch before the step.
    """

    def loss(parameters):
        logits, advanced = model.apply_training(parameters, images)
        metrics = loss_and_accuracy(logits, labels, label_smoothing)
        if axis_name is not None:  # whose gradient is the sum over devices
            metrics = lax.pmean(metrics, axis_name)
        return metrics.loss, (metrics, advanced)

    gradients, (metrics, advanced) = jax.grad(loss, has_aux=True)(state.parameters)
    updates, optimizer_state = optimizer.update(
        gradients, state.optimizer_state, state.parameters
    )
    parameters = optax.apply_updates(state.parameters, updates)
    if advanced is not None:
        parameters = with_statistics_of(parameters, advanced)
    average = state.average
    if average is not None:
        decay = jnp.minimum(average_decay, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(
            lambda a, p: a + (1 - decay).astype(p.dtype) * (p - a), average, parameters
        )
    return TrainingState(parameters, optimizer_state, state.step + 1, average), metrics


def steps_in_epoch(examples: int, batch_size: int) -> int:
    """How many full batches a data set holds: the steps of one :func:`train_epoch`.

    Raises:
      ValueError: when ``batch_size`` is not between 1 and the number of examples.

    >>> steps_in_epoch(1347, batch_size=32)
    42
    """
    if not 1 <= batch_size <= examples:
        raise ValueError(
            f"batch_size is {batch_size}; with {examples} examples it must be between 1 "
            f"and {examples}"
        )
    return examples // batch_size


@partial(
    jax.jit,
    static_argnames=(
        "model",
        "optimizer",
        "batch_size",
        "augment",
        "label_smoothing",
        "average_decay",
        "report",
        "report_every",
        "axis_name",
    ),
)
def train_epoch(
    state: TrainingState,
    images: Shaped[Array, "examples _ _ _"],
    labels: Int[Array, " examples"],
    key: Key[Array, ""],
    *,
    model: Model,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    augment: Augment | None = None,
    label_smoothing: float = 0.0,
    average_decay: float = 0.999,
    report: Report | None = None,
    report_every: int = 10,
    axis_name: str | None = None,
) -> tuple[TrainingState, Metrics]:
    """Once through a shuffled data set: one compiled ``lax.scan`` over its batches.

    Examples that do not fill a last batch sit this epoch out; the next one is shuffled
    anew.

    Args:
      state: where training is.
      images, labels: the whole data set.
      key: decides the order, and how images are augmented.
      model, optimizer: static, as in :func:`train_step`.
      batch_size: examples in a step.
      augment: if given, ``augment(key, image)`` is what a step sees of an image, with a
        key of its own; static.
      label_smoothing, average_decay: static, as in :func:`train_step`.
      report: if given, called as ``report(step, loss, accuracy)`` while the epoch runs;
        static.
      report_every: how many steps pass between two reports.
      axis_name: inside ``shard_map``, the mesh axis along which batches are to be spread,
        while the state, the data set and the key are the same on all devices; static.

    Returns:
      The next state, and the metrics of every batch, each before its step.

    Raises:
      ValueError: when ``batch_size`` is not between 1 and the number of examples, or no
        multiple of the number of devices.
    """
    examples = images.shape[0]
    steps = steps_in_epoch(examples, batch_size)
    order = jax.random.permutation(key, examples)[: steps * batch_size]
    part_of_device = _part_of_device(batch_size, axis_name)

    def step(state, batch):
        batch = part_of_device(batch)
        seen = images[batch]
        if augment is not None:
            keys = jax.random.split(jax.random.fold_in(key, state.step), batch_size)
            seen = jax.vmap(augment)(part_of_device(keys), seen)
        state, metrics = train_step(
            state=state,
            images=seen,
            labels=labels[batch],
            model=model,
            optimizer=optimizer,
            label_smoothing=label_smoothing,
            average_decay=average_decay,
            axis_name=axis_name,
        )
        if report is not None:
            is_first = axis_name is None or lax.axis_index(axis_name) == 0
            lax.cond(
                (state.step % report_every == 0) & is_first,
                partial(jax.debug.callback, report),
                lambda *nothing_to_report: None,
                state.step,
                metrics.loss,
                metrics.accuracy,
            )
        return state, metrics

    return lax.scan(step, state, order.reshape(steps, batch_size))


def _part_of_device(size: int, axis_name: str | None) -> Callable[[Array], Array]:
    """From an array of so many entries to those of this device along an axis."""
    if axis_name is None:
        return lambda whole: whole
    devices = lax.axis_size(axis_name)
    if size % devices:
        raise ValueError(
            f"batch_size is {size}; it must be a multiple of the number of devices, "
            f"{devices}"
        )
    first, part = lax.axis_index(axis_name) * (size // devices), size // devices
    return lambda whole: lax.dynamic_slice_in_dim(whole, first, part)


@partial(jax.jit, static_argnames=("model", "batch_size", "axis_name"))
def evaluate(
    parameters: Parameters,
    images: Shaped[Array, "examples _ _ _"],
    labels: Int[Array, " examples"],
    *,
    model: Model,
    batch_size: int = 500,
    axis_name: str | None = None,
) -> Evaluation:
    """Classify a whole data set; compiled.

    Args:
      parameters: of the model.
      images, labels: the whole data set.
      model: static.
      batch_size: how many images at once, which bounds the memory in use.
      axis_name: inside ``shard_map``, the mesh axis along which the work is to be spread;
        static.

    Returns:
      The metrics over the whole set, and every prediction.
    """

    def logits_of(image):
        return model.apply(parameters, image[None])[0]

    examples = images.shape[0]
    if axis_name is None:
        logits = lax.map(logits_of, images, batch_size=min(batch_size, examples))
    else:
        part = -(-examples // lax.axis_size(axis_name))
        first = lax.axis_index(axis_name) * part
        mine = images[jnp.minimum(first + jnp.arange(part), examples - 1)]
        logits = lax.map(logits_of, mine, batch_size=min(batch_size, part))
        shape = (part * lax.axis_size(axis_name), *logits.shape[1:])
        whole = jnp.zeros(shape, logits.dtype)
        whole = lax.dynamic_update_slice_in_dim(whole, logits, first, axis=0)
        logits = lax.psum(whole, axis_name)[:examples]
    predictions = jnp.argmax(logits, axis=-1).astype(labels.dtype)
    return Evaluation(loss_and_accuracy(logits, labels), predictions)
