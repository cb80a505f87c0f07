"""What :mod:`experiments.benchmark` times: layers, pools, networks and calls, described.

Nothing here needs JAX or PyTorch: both sides build their arrays from these descriptions.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Layer:
    """A convolution with bias, of square kernels. ``groups == c_in`` is depthwise."""

    batch: int
    c_in: int
    c_out: int
    size: tuple[int, int]
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1

    @property
    def name(self) -> str:
        height, width = self.size
        parts = [f"{self.kernel}×{self.kernel} {self.c_in}→{self.c_out}"]
        if 1 < self.groups == self.c_in:
            parts = [f"{self.kernel}×{self.kernel} depthwise {self.c_in}"]
        elif self.groups > 1:
            parts.append(f"{self.groups} groups")
        parts += [f"{height}×{width}", f"batch {self.batch}"]
        if self.stride > 1:
            parts.append(f"stride {self.stride}")
        if self.dilation > 1:
            parts.append(f"dilation {self.dilation}")
        if self.padding == 0 and self.kernel > 1:
            parts.append("unpadded")
        return ", ".join(parts)

    @property
    def output_size(self) -> tuple[int, int]:
        reach = self.dilation * (self.kernel - 1)
        height, width = (
            (length + 2 * self.padding - reach - 1) // self.stride + 1
            for length in self.size
        )
        return height, width

    @property
    def flops(self) -> int:
        """Floating-point operations of one of the three sums: two for each multiply-add."""
        height, width = self.output_size
        outputs = self.batch * self.c_out * height * width
        return 2 * outputs * self.c_in // self.groups * self.kernel**2

    def shapes(self, layout: str) -> dict[str, tuple[int, ...]]:
        """The shapes of x, w, b and dy."""
        (h, w), (h_out, w_out) = self.size, self.output_size
        k, c_in, c_out = self.kernel, self.c_in // self.groups, self.c_out
        if layout == "NHWC":
            x, weights = (self.batch, h, w, self.c_in), (k, k, c_in, c_out)
            dy = (self.batch, h_out, w_out, c_out)
        else:
            x, weights = (self.batch, self.c_in, h, w), (c_out, c_in, k, k)
            dy = (self.batch, c_out, h_out, w_out)
        return {"x": x, "w": weights, "b": (c_out,), "dy": dy}


@dataclass(frozen=True)
class Pool:
    """A pooling; ``kind`` is ``"max"`` or ``"avg"``, and padding counts in averages."""

    kind: str
    kernel: int
    stride: int
    padding: int
    batch: int
    channels: int
    size: int

    @property
    def name(self) -> str:
        parts = [f"{self.kind} {self.kernel}×{self.kernel}", f"stride {self.stride}"]
        if self.padding:
            parts.append(f"padding {self.padding}")
        return ", ".join([*parts, f"{self.batch}×{self.channels}×{self.size}×{self.size}"])

    @property
    def output_size(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    def shapes(self, layout: str) -> dict[str, tuple[int, ...]]:
        """The shapes of x and dy."""
        shapes = {}
        for name, n in ("x", self.size), ("dy", self.output_size):
            channels_last = (self.batch, n, n, self.channels)
            channels_first = (self.batch, self.channels, n, n)
            shapes[name] = channels_last if layout == "NHWC" else channels_first
        return shapes


@dataclass(frozen=True)
class Call:
    """A call of a function outside of ``jit``, or of its gradient, with small arrays."""

    function: str
    gradient: bool = False

    @property
    def name(self) -> str:
        return f"gradient of {self.function}" if self.gradient else self.function

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of its arguments, with channels first."""
        shapes = {"x": (8, 3, 16, 16), "w": (8, 3, 3, 3)}
        return shapes if self.function == "conv2d" else {"x": shapes["x"]}


LAYERS = (
    Layer(128, 1, 6, (28, 28), 5, padding=2),
    Layer(64, 3, 32, (32, 32), 3, padding=1),
    Layer(64, 32, 64, (32, 32), 3, padding=1),
    Layer(64, 64, 128, (16, 16), 3, stride=2, padding=1),
    Layer(64, 128, 128, (8, 8), 3, padding=1),
    Layer(16, 64, 64, (56, 56), 3, padding=1),
    Layer(16, 128, 128, (28, 28), 3, padding=1),
    Layer(16, 256, 256, (14, 14), 3, padding=1),
    Layer(16, 256, 64, (56, 56), 1),
    Layer(32, 64, 64, (32, 32), 3, padding=1, groups=64),
    Layer(4, 3, 64, (224, 224), 7, stride=2, padding=3),
    Layer(16, 64, 256, (28, 28), 1),
    Layer(64, 32, 64, (14, 14), 5, padding=2),
    Layer(8, 3, 64, (112, 112), 7, stride=2, padding=3),
    Layer(32, 64, 64, (28, 28), 3, padding=1, groups=8),
    Layer(16, 64, 64, (28, 28), 3, padding=2, dilation=2),
    Layer(32, 128, 128, (16, 16), 3, padding=1, groups=128),
    Layer(32, 64, 64, (32, 32), 3, stride=2, padding=1, groups=64),
    Layer(16, 96, 96, (14, 14), 5, padding=2, groups=96),
    Layer(16, 48, 48, (27, 35), 3, padding=1),
    Layer(1, 64, 64, (56, 56), 3, padding=1),
    Layer(256, 16, 32, (16, 16), 3, padding=1),
    Layer(128, 6, 16, (14, 14), 5),
    Layer(32, 64, 128, (32, 32), 1, stride=2),
)

POOLS = (
    Pool("max", 2, 2, 0, 64, 64, 32),
    Pool("max", 3, 2, 1, 64, 64, 32),
    Pool("max", 3, 1, 1, 32, 64, 28),
    Pool("max", 2, 2, 0, 128, 32, 28),
    Pool("max", 3, 2, 0, 16, 64, 55),
    Pool("avg", 2, 2, 0, 64, 64, 32),
    Pool("avg", 3, 2, 1, 32, 64, 32),
    Pool("avg", 3, 1, 1, 32, 64, 28),
    Pool("avg", 7, 7, 0, 64, 256, 7),
    Pool("avg", 5, 1, 2, 16, 64, 28),
)

Network = Literal["LeNet-5", "MNIST CNN", "VGG", "ResNet-20", "MobileNet"]

# What a network is given: how many images, how large, of how many channels.
NETWORKS: dict[str, tuple[int, int, int]] = {
    "LeNet-5": (128, 28, 1),
    "MNIST CNN": (128, 28, 1),
    "VGG": (64, 32, 3),
    "ResNet-20": (64, 32, 3),
    "MobileNet": (64, 32, 3),
}
CLASSES = 10

CALLS = tuple(
    Call(function, gradient)
    for function in ("conv2d", "max_pool2d", "avg_pool2d", "relu")
    for gradient in (False, True)
)

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class OnGpu:
    """What is timed on a GPU.

    Attributes:
      what: a layer, a pool, or a network by its name.
      modes: what of it.
      dtype: of its arrays.
      images: of a network's batch; by default its usual one.
    """

    what: Layer | Pool | Network
    modes: tuple[str, ...] = ("forward + backward",)
    dtype: str = "float32"
    images: int | None = None

    @property
    def name(self) -> str:
        parts = [self.what if isinstance(self.what, str) else self.what.name]
        if self.images:
            parts.append(f"batch {self.images}")
        if self.dtype != "float32":
            parts.append(self.dtype)
        return ", ".join(parts)


PARTS = ("forward", "input gradient", "weight gradient")
WHOLE_AND_WEIGHTS = ("forward + backward", "weight gradient")
LARGE_DEPTHWISE = Layer(64, 96, 96, (56, 56), 7, padding=3, groups=96)

DEPTHWISE_ON_GPU = (
    OnGpu(LARGE_DEPTHWISE, WHOLE_AND_WEIGHTS),
    OnGpu(
        Layer(64, 192, 192, (28, 28), 5, stride=2, padding=2, groups=192),
        ("forward + backward", *PARTS),
    ),
    OnGpu(Layer(64, 128, 128, (56, 56), 3, padding=1, groups=128), WHOLE_AND_WEIGHTS),
    OnGpu(Layer(64, 96, 96, (56, 56), 5, padding=2, groups=96), WHOLE_AND_WEIGHTS),
    OnGpu(Layer(16, 96, 96, (56, 56), 31, padding=15, groups=96), WHOLE_AND_WEIGHTS),
    OnGpu(LARGE_DEPTHWISE, WHOLE_AND_WEIGHTS, "bfloat16"),
)
AVERAGES_ON_GPU = tuple(
    OnGpu(Pool("avg", kernel, 2, padding, 64, 64, 112))
    for kernel, padding in ((2, 0), (3, 1))
)
LAYERS_AND_MAXIMA = (
    Pool("max", 2, 2, 0, 64, 64, 112),
    Pool("max", 3, 2, 1, 64, 64, 112),
    Pool("max", 3, 1, 1, 64, 192, 28),
    Layer(64, 3, 64, (224, 224), 7, stride=2, padding=3),
    Layer(64, 64, 64, (56, 56), 3, padding=1),
    Layer(64, 256, 256, (14, 14), 3, padding=1),
    Layer(64, 256, 64, (56, 56), 1),
)
IN_BOTH_DTYPES_ON_GPU = tuple(
    OnGpu(what, dtype=dtype) for what in LAYERS_AND_MAXIMA for dtype in DTYPES
)
STEPS_ON_GPU = tuple(
    OnGpu(network, ("step",), dtype, 512)
    for dtype in DTYPES
    for network in ("MobileNet", "MNIST CNN", "ResNet-20", "VGG", "LeNet-5")
)
ON_GPU = (
    *DEPTHWISE_ON_GPU,
    *IN_BOTH_DTYPES_ON_GPU,
    *AVERAGES_ON_GPU,
    *STEPS_ON_GPU,
)
"""In this order, as far as the time allows."""
REPEATED = Pool("max", 3, 2, 1, 16, 64, 112)
"""Its gradient is computed several times over, and compared bit by bit."""

QUICK_ON_GPU = (
    OnGpu(
        Layer(2, 4, 4, (9, 9), 7, padding=3, groups=4), ("forward + backward", *PARTS[1:])
    ),
    OnGpu(Pool("max", 3, 2, 1, 2, 3, 9), dtype="bfloat16"),
    OnGpu("LeNet-5", ("step",), images=4),
)
QUICK_REPEATED = Pool("max", 3, 2, 1, 2, 3, 9)

QUICK_LAYERS = (LAYERS[0], LAYERS[4], LAYERS[9])
QUICK_POOLS = (POOLS[0], POOLS[8])
QUICK_NETWORKS = ("LeNet-5", "MNIST CNN")
QUICK_SCANS = ("LeNet-5",)
QUICK_CALLS = CALLS[:2]
