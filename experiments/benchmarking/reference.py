"""Convolution and its gradients in float64 with NumPy: what errors are measured against.

Tap by tap, each a matrix product over the channels; nothing of jaxcnn and nothing of JAX.
Arrays are ``(B, H, W, C)`` with weights ``(K, K, C_in/groups, C_out)``.
"""

from collections.abc import Iterator

import numpy as np

from experiments.benchmarking.cases import Layer


def convolution(x, w, b, dy, layer: Layer) -> dict[str, np.ndarray]:
    """The output y of a layer, and the gradients dx and dw of ⟨y, dy⟩, in float64."""
    x, w, b, dy = (np.asarray(array, np.float64) for array in (x, w, b, dy))
    p = layer.padding
    padded = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
    y, dw, d_padded = b + np.zeros_like(dy), np.zeros_like(w), np.zeros_like(padded)
    dy_rows = rows(dy, layer.groups)
    for m, n, seen in taps(layer):
        tap_rows = rows(padded[seen], layer.groups)
        # (groups, C_in/groups, C_out/groups)
        w_tap = w[m, n].reshape(w.shape[2], layer.groups, -1).transpose(1, 0, 2)
        y += images(tap_rows @ w_tap, y.shape)
        dw_tap = tap_rows.transpose(0, 2, 1) @ dy_rows
        dw[m, n] = dw_tap.transpose(1, 0, 2).reshape(w[m, n].shape)
        dx_rows = dy_rows @ w_tap.transpose(0, 2, 1)
        d_padded[seen] += images(dx_rows, padded[seen].shape)
    height, width = layer.size
    return {"y": y, "dx": d_padded[:, p : p + height, p : p + width], "dw": dw}


def taps(layer: Layer) -> Iterator[tuple[int, int, tuple[slice, ...]]]:
    """Each kernel element, and what it sees of the padded images."""

    def seen(offset, length):
        start = layer.dilation * offset
        return slice(start, start + layer.stride * (length - 1) + 1, layer.stride)

    height, width = layer.output_size
    for m in range(layer.kernel):
        for n in range(layer.kernel):
            yield m, n, (slice(None), seen(m, height), seen(n, width), slice(None))


def rows(images, groups: int):
    """``(B, H, W, C)`` as ``(groups, B·H·W, C/groups)``."""
    channels = images.shape[-1] // groups
    return images.reshape(-1, groups, channels).transpose(1, 0, 2)


def images(rows, shape):
    """The inverse of :func:`rows`."""
    return rows.transpose(1, 0, 2).reshape(shape)


def relative_error(array, expected) -> float:
    """The largest deviation divided by the largest entry."""
    deviation = np.abs(np.asarray(array, np.float64) - expected).max()
    return float(deviation / np.abs(expected).max())
