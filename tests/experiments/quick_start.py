"""Training whose first parameters are drawn at once, which takes no time to compile.

A command like :mod:`experiments.train`, for tests to which other first values make no
difference; and for those in their own process what makes it so.
"""

from experiments import train
from experiments.run import command
from tests.models.parameters import drawn_at_once


def patch(setattr):
    """From now on training starts quickly."""
    model_of = train.model_of
    setattr(train, "model_of", lambda *how: drawn_at_once(model_of(*how)))


if __name__ == "__main__":
    patch(setattr)
    command.run(train.main, train.Settings, train.__doc__)
