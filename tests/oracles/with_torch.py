"""What the random cases mean to PyTorch: its answers and its gradients.

As :mod:`tests.oracles.with_xla`, whose functions have the same names. Everything is
computed in float64 and channels first. Where PyTorch is not installed, importing this
skips the test.
"""

import pytest

from tests.random_cases.cases import Answer, arrays

torch = pytest.importorskip("torch")
nn = torch.nn.functional


def answer(formula, case):
    """What a formula gives for the case's operands, and its gradients."""
    operands, dy = arrays(case)
    tensors = [torch.tensor(each, requires_grad=True) for each in operands]
    y = formula(*tensors)
    y, indices = y if isinstance(y, tuple) else (y, None)
    y.backward(torch.tensor(dy))
    return Answer(
        y.detach().numpy(),
        tuple(each.grad.numpy() for each in tensors),
        None if indices is None else indices.numpy(),
    )


def for_dimensions(name, x):
    """The function for as many dimensions as x has."""
    return getattr(nn, f"{name}{x.ndim - 2}d")


def padded(x, pairs, mode="constant"):
    """x with (low, high) around it, and then cropped where they are negative."""
    for limit in (max, min):
        # PyTorch names the last dimension first.
        pads = [limit(pad, 0) for pair in reversed(pairs) for pad in pair]
        x = nn.pad(x, pads, mode if limit is max else "constant")
    return x


# --- Convolutions ---------------------------------------------------------------------


def convolution(case):
    mode = {"zeros": "constant"}.get(case.padding_mode, case.padding_mode)

    def formula(x, w, b=None):
        x = padded(x, case.window.padding, mode)
        convolve = for_dimensions("conv", x)
        window = case.window
        return convolve(
            x, w, b, window.stride, dilation=window.dilation, groups=case.groups
        )

    return answer(formula, case)


def separable_convolution(case):
    def formula(x, w_depthwise, w_pointwise, b=None):
        convolve = for_dimensions("conv", x)
        y = convolve(
            padded(x, case.window.padding),
            w_depthwise,
            stride=case.window.stride,
            dilation=case.window.dilation,
            groups=case.groups,
        )
        return convolve(y, w_pointwise, b)

    return answer(formula, case)


def transposed_convolution(case):
    """PyTorch pads both sides alike: other paddings are cropped from the whole result."""
    window, extra = case.window, case.written["output_padding"]
    extra = [extra] * len(case.size) if isinstance(extra, int) else extra
    pairs = [(low, high + e) for (low, high), e in zip(window.padding, extra, strict=True)]
    is_torchs = all(low == high >= 0 for low, high in pairs)

    def formula(x, w, b=None):
        y = for_dimensions("conv_transpose", x)(
            x,
            w,
            b if is_torchs else None,
            window.stride,
            padding=[low for low, _ in pairs] if is_torchs else 0,
            output_padding=extra,
            dilation=window.dilation,
            groups=case.groups,
        )
        if is_torchs:
            return y
        y = padded(y, [(-low, -high) for low, high in pairs])
        return y if b is None else y + b.reshape(-1, *[1] * len(case.size))

    return answer(formula, case)


# --- Poolings -------------------------------------------------------------------------


def asked(case):
    """The window as it was asked for: with the same padding at both sides."""
    return {
        "kernel_size": case.window.kernel_size,
        "stride": case.window.stride,
        "padding": [low for low, _ in case.window.padding],
        "ceil_mode": case.written["ceil_mode"],
    }


def max_pooling(case):
    def formula(x):
        pool = for_dimensions("max_pool", x)
        return pool(x, **asked(case), dilation=case.window.dilation, return_indices=True)

    return answer(formula, case)


def max_unpooling(case):
    def formula(x):
        window = asked(case)
        pooled, indices = for_dimensions("max_pool", x)(x, **window, return_indices=True)
        del window["ceil_mode"]
        unpool = for_dimensions("max_unpool", x)
        return unpool(
            pooled, indices, **window, output_size=case.written.get("output_size")
        )

    return answer(formula, case)


def average_pooling(case):
    options = {"count_include_pad", "divisor_override"} & case.written.keys()
    written = {name: case.written[name] for name in options}

    def formula(x):
        return for_dimensions("avg_pool", x)(x, **asked(case), **written)

    return answer(formula, case)


def power_pooling(case):
    window = asked(case)
    del window["padding"]  # which is none
    if len(case.size) == 1:
        (window["kernel_size"],) = case.window.kernel_size

    def formula(x):
        return for_dimensions("lp_pool", x)(x, float(case.written["norm_type"]), **window)

    return answer(formula, case)


def adaptive_average_pooling(case):
    return answer(
        lambda x: for_dimensions("adaptive_avg_pool", x)(x, case.out_shape[2:]), case
    )


def adaptive_max_pooling(case):
    def formula(x):
        pool = for_dimensions("adaptive_max_pool", x)
        return pool(x, case.out_shape[2:], return_indices=True)

    return answer(formula, case)


# --- Patches --------------------------------------------------------------------------
#


def as_images(entries, one):
    """Sequences are images of one row: PyTorch's patches are of two dimensions alone."""
    return [*[one] * (2 - len(entries)), *entries]


def in_two_dimensions(window):
    return {
        "kernel_size": as_images(window.kernel_size, 1),
        "stride": as_images(window.stride, 1),
        "dilation": as_images(window.dilation, 1),
    }


def unfolding(case):
    def formula(x):
        x = padded(x, case.window.padding)
        images = x.reshape(*x.shape[:2], *as_images(x.shape[2:], 1))
        p = nn.unfold(images, **in_two_dimensions(case.window))
        return p.reshape(case.out_shape)

    return answer(formula, case)


def folding(case):
    batch, channels, *size = case.out_shape
    pairs = case.window.padding
    whole = [h + low + high for h, (low, high) in zip(size, pairs, strict=True)]

    def formula(p):
        columns = p.reshape(batch, -1, p.shape[-1])
        x = nn.fold(columns, as_images(whole, 1), **in_two_dimensions(case.window))
        x = x.reshape(batch, channels, *whole)
        return padded(x, [(-low, -high) for low, high in pairs])

    return answer(formula, case)
