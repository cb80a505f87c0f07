"""From names on a command line to optax: how a network is trained."""

from dataclasses import dataclass
from typing import Literal

import optax

OPTIMIZERS = {
    "adamw": lambda rate, it: optax.adamw(rate, weight_decay=it.weight_decay),
    "lion": lambda rate, it: optax.lion(rate, weight_decay=it.weight_decay),
    "sgd": lambda rate, it: optax.chain(
        optax.add_decayed_weights(it.weight_decay),
        optax.sgd(rate, momentum=it.momentum, nesterov=True),
    ),
}

SCHEDULES = {
    "cosine": lambda steps: optax.cosine_decay_schedule(1.0, steps),
    "linear": lambda steps: optax.linear_schedule(1.0, 0.0, steps),
    "step": lambda steps: optax.piecewise_constant_schedule(
        1.0, {steps // 2: 0.1, steps * 3 // 4: 0.1}
    ),
    "constant": lambda _: optax.constant_schedule(1.0),
}


@dataclass(frozen=True)
class Optimization:
    """How parameters follow their gradients.

    Raises:
      ValueError: when an option is out of its range.
    """

    optimizer: Literal["adamw", "lion", "sgd"] = "adamw"
    """Of optax; sgd has Nesterov's momentum."""
    learning_rate: float = 2e-3
    """The largest, which the schedule begins with, or its warm-up ends with."""
    schedule: Literal["cosine", "linear", "step", "constant"] = "cosine"
    """How the learning rate falls: to zero along a cosine or a line, to a tenth after half
    of the run and again after three quarters, or not at all."""
    warmup: float = 0.0
    """In which part of the run, from 0 to below 1, the learning rate rises from zero."""
    weight_decay: float = 0.1
    """How strongly weights are pulled towards zero; with sgd, by their gradients."""
    momentum: float = 0.9
    """Of sgd."""
    clip: float = 0.0
    """The largest norm of all gradients together, which larger ones are scaled to; 0 for
    any."""
    label_smoothing: float = 0.0
    """What part of every label is given to all classes alike."""
    average: float = 0.0
    """If not 0, the moving average of the parameters that is evaluated and kept keeps so
    much of itself at a step, say 0.999."""

    def __post_init__(self):
        # As float32, which training computes in, these are neither 0 nor infinite.
        least, most = 1e-37, 1e38
        if not least <= self.learning_rate <= most:
            raise ValueError(
                f"learning_rate is {self.learning_rate}; it must be positive, from {least} "
                f"to {most}"
            )
        for name in ("weight_decay", "clip"):
            given = getattr(self, name)
            if not (given == 0 or least <= given <= most):
                raise ValueError(
                    f"{name} is {given}; it must not be negative: 0, or from {least} to "
                    f"{most}"
                )
        for name in ("warmup", "momentum", "label_smoothing", "average"):
            if not 0 <= getattr(self, name) <= 1 - 2**-24:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be from 0 to below 1, as "
                    f"float32 too"
                )

    def rate(self, steps: int) -> optax.Schedule:
        """The learning rate at each of so many steps.

        >>> rate = Optimization(learning_rate=1.0, warmup=0.5, schedule="linear").rate(8)
        >>> [round(float(rate(step)), 2) for step in range(9)]
        [0.0, 0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25, 0.0]

        Raises:
          ValueError: when it would rise in all of them.
        """
        rising = round(self.warmup * steps)
        if rising == steps:
            raise ValueError(
                f"warmup is {self.warmup}, which is all of the run's {steps} steps; some "
                f"must be left after it"
            )
        falling = SCHEDULES[self.schedule](steps - rising)
        factor = falling
        if rising:
            rise = optax.linear_schedule(0.0, 1.0, rising)
            factor = optax.join_schedules([rise, falling], [rising])
        return lambda step: self.learning_rate * factor(step)

    def transformation(self, steps: int) -> optax.GradientTransformation:
        """The optimizer, for a run of so many steps."""
        optimizer = OPTIMIZERS[self.optimizer](self.rate(steps), self)
        if not self.clip:
            return optimizer
        return optax.chain(optax.clip_by_global_norm(self.clip), optimizer)
