"""Calls of ``jax.lax``'s functions, drawn at random from all that they take."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

PADDINGS = ("SAME", "VALID", "SAME_LOWER")


def convolution(number):
    """Operands and options of a convolution that has a result with entries."""
    return _first_with_entries(number, _convolution, lax.conv_general_dilated)


def pooling(number):
    """Operands and options of a windowed sum that has a result with entries."""
    return _first_with_entries(
        number,
        _pooling,
        partial(lax.reduce_window, init_value=0.0, computation=lax.add),
    )


def _first_with_entries(number, drawn, function):
    rng = np.random.default_rng(number)
    while True:
        shapes, options = drawn(rng)
        operands = [jnp.asarray(rng.standard_normal(shape)) for shape in shapes]
        try:
            if jax.eval_shape(partial(function, **options), *operands).size:
                return operands, options
        except ValueError:  # more cropped than there is
            continue


def _convolution(rng):
    n = rng.choice([0, 1, 1, 2, 2, 2, 3, 4])
    letters = "DHWT"[:n]
    groups, batch_groups = (1, rng.integers(1, 4))[:: rng.choice([1, -1])]
    sizes = {
        "N": batch_groups * rng.integers(1, 3),
        "C": groups * rng.integers(1, 4),
        **_one_for_each(letters, rng.integers(3, 7 if n < 3 else 5, n)),
    }
    kernel = {
        "O": groups * batch_groups * rng.integers(1, 3),
        "I": sizes["C"] // groups,
        **_one_for_each(letters, rng.integers(1, 4, n)),
    }
    numbers, (x, w, _) = _dimension_numbers(rng, letters)
    # The options have one entry for each dimension, in the order that the weights have.
    options = {
        "window_strides": _entries(rng, [1, 2, 3], n),
        "padding": [(int(low), int(high)) for low, high in rng.integers(-1, 4, (n, 2))],
        "rhs_dilation": _entries(rng, [1, 2], n) if rng.random() < 0.6 else None,
        "dimension_numbers": numbers,
        "feature_group_count": int(groups),
        "batch_group_count": int(batch_groups),
    }
    if rng.random() < 0.4:
        options["padding"] = str(rng.choice(PADDINGS))
    elif rng.random() < 0.7:
        options["lhs_dilation"] = _entries(rng, [1, 2, 3], n)
        if rng.random() < 0.6:
            options["window_strides"] = (1,) * n
    return ([sizes[letter] for letter in x], [kernel[letter] for letter in w]), options


def _dimension_numbers(rng, letters):
    """None, channels last, any order in letters or in numbers; and its letters."""
    kind = rng.choice(["none", "last", "letters", "numbers"])
    specs = (f"NC{letters}", f"OI{letters}", f"NC{letters}")
    if kind == "none":
        return None, specs
    if kind == "last":
        specs = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
        return specs, specs
    specs = tuple("".join(rng.permutation(list(spec))) for spec in specs)
    if kind == "letters":
        return specs, specs
    return lax.conv_dimension_numbers(*(((1,) * len(specs[0]),) * 2), specs), specs


def _pooling(rng):
    n = rng.integers(1, 6)
    has_window = rng.random(n) < 0.6
    pads = rng.integers(-1, 3, (n, 2)) * has_window[:, None]
    options = {
        "window_dimensions": _entries(rng, [1, 2, 3], n, has_window),
        "window_strides": _entries(rng, [1, 2, 3], n, has_window),
        "padding": [(int(low), int(high)) for low, high in pads],
    }
    if rng.random() < 0.4:
        options["padding"] = str(rng.choice(PADDINGS))
    elif rng.random() < 0.3:
        del options["window_strides"]
    if rng.random() < 0.4:
        options["window_dilation"] = _entries(rng, [1, 2], n, has_window)
    return (tuple(rng.integers(1, 6, n)),), options


def _entries(rng, choices, n, where=True):
    return tuple(int(entry) for entry in np.where(where, rng.choice(choices, n), 1))


def _one_for_each(letters, sizes):
    return dict(zip(letters, sizes, strict=True))
