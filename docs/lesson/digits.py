"""Draw the digits and the first weights of the lesson's last scene into digits.json.

They are checked in, so that a page is built without scikit-learn:
``python docs/lesson/digits.py`` writes the same file again.
"""

import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

FILE = Path(__file__).with_name("digits.json")
CLASSES = (0, 4, 7)
LEARNED, UNSEEN = 5, 10
"""How many of each class."""


def drawn() -> dict:
    """Some of scikit-learn's scanned digits, a class in turn, and random weights."""
    pixels, target = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(target))
    by_class = [order[target[order] == each] for each in CLASSES]

    def digits(first: int, last: int) -> list[dict]:
        return [
            {"label": label, "pixels": pixels[of_class[number]].astype(int).tolist()}
            for number in range(first, last)
            for label, of_class in enumerate(by_class)
        ]

    # A zero is added, so that none of the rounded ones is −0.
    rng = np.random.default_rng(10)
    kernels = rng.normal(0, 0.6, (2, 3, 3)).round(1) + 0.0
    matrix = rng.normal(0, 0.5, (8, len(CLASSES))).round(1) + 0.0
    return {
        "classes": CLASSES,
        "learned": digits(0, LEARNED),
        "unseen": digits(LEARNED, LEARNED + UNSEEN),
        "weights": {
            "W": kernels.ravel().tolist(),
            "b": [0] * len(kernels),
            "V": matrix.ravel().tolist(),
            "c": [0] * len(CLASSES),
        },
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(drawn(), separators=(",", ":")) + "\n")
