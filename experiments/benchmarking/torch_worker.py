"""PyTorch's side of the benchmark: a process of its own that times what it is told to.

    python -m experiments.benchmarking.torch_worker cpu

It computes on the device that its argument names. One JSON object a line comes in, one
goes out. The first that goes out says which version this is. Then ``{"prepare": {…}}``
makes a contestant ready and is answered by the number of its parameters, ``{"run": calls,
"id": …}`` by the seconds that many calls took, and ``{"forget": true}`` lets all
contestants go. Nothing of JAX is imported: the threads of one framework must not disturb
the other's.
"""

# pyright: reportMissingImports=false

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from experiments.benchmarking.cases import CLASSES, NETWORKS, Layer, Pool
from experiments.benchmarking.torch_networks import network

FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
GRADIENTS = {
    "input gradient": (True, False, False),
    "weight gradient": (False, True, False),
}


def random(shape, layout: str, gradient: bool = False, dtype: str = "float32"):
    tensor = torch.randn(shape, dtype=getattr(torch, dtype))
    if tensor.ndim == 4:
        tensor = tensor.contiguous(memory_format=FORMATS[layout])
    return tensor.requires_grad_(gradient)


def layer(case: dict[str, Any], layout: str, mode: str, dtype: str) -> Callable:
    """A convolution, alone or with all its gradients; or one of them alone."""
    given = Layer(**{**case, "size": tuple(case["size"])})
    shapes, backward = given.shapes("NCHW"), mode == "forward + backward"
    x, w, b = (random(shapes[name], layout, backward, dtype) for name in "xwb")
    dy = random(shapes["dy"], layout, dtype=dtype)
    known = (given.stride, given.padding, given.dilation, given.groups)

    def run():
        y = functional.conv2d(x, w, b, *known)
        return torch.autograd.grad(y, (x, w, b), dy) if backward else y

    def run_alone():
        stride, padding, dilation, groups = known
        return torch.ops.aten.convolution_backward(
            dy,
            x,
            w,
            [len(b)],
            [stride] * 2,
            [padding] * 2,
            [dilation] * 2,
            False,
            [0] * 2,
            groups,
            GRADIENTS[mode],
        )

    return run_alone if mode in GRADIENTS else run


def pool(case: dict[str, Any], layout: str, mode: str, dtype: str) -> Callable:
    """A pooling, alone or with its gradient."""
    given = Pool(**case)
    shapes, backward = given.shapes("NCHW"), mode != "forward"
    x = random(shapes["x"], layout, backward, dtype)
    dy = random(shapes["dy"], layout, dtype=dtype)
    pooling = functional.max_pool2d if given.kind == "max" else functional.avg_pool2d

    def run():
        y = pooling(x, given.kernel, given.stride, given.padding)
        return torch.autograd.grad(y, x, dy) if backward else y

    return run


def training_step(
    name: str, layout: str, bfloat16: bool, images: int | None
) -> tuple[Callable, int]:
    """A whole step of a network, autocast or in float32, and how many parameters it has."""
    usual, size, channels = NETWORKS[name]
    batch, device = images or usual, torch.get_default_device().type
    model = network(name).to(memory_format=FORMATS[layout])  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x = random((batch, channels, size, size), layout)
    labels = torch.randint(0, CLASSES, (batch,))

    def run():
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            logits = model(x)
        loss = functional.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        return loss

    return run, sum(parameter.numel() for parameter in model.parameters())


def prepared(what: dict[str, Any]) -> tuple[Callable, int]:
    torch.manual_seed(0)
    if what["kind"].startswith("network"):
        is_bfloat16 = what["kind"] == "network in bfloat16"
        return training_step(what["case"], what["layout"], is_bfloat16, what["images"])
    make = {"layer": layer, "pool": pool}[what["kind"]]
    return make(what["case"], what["layout"], what["mode"], what["dtype"]), 0


def timed(function: Callable, calls: int) -> float:
    finish = {"cpu": lambda: None, "cuda": torch.cuda.synchronize}
    start = time.perf_counter()
    for _ in range(calls):
        function()
    finish[torch.get_default_device().type]()
    return time.perf_counter() - start


def main(device: str) -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_default_device(device)
    torch.empty(0)  # an error where there is none
    torch.backends.cudnn.benchmark = True  # as XLA does, it tries algorithms
    functions = []
    say({"torch": torch.__version__, "threads": torch.get_num_threads()})
    for line in sys.stdin:
        told = json.loads(line)
        if "prepare" in told:
            function, parameters = prepared(told["prepare"])
            functions.append(function)
            say({"id": len(functions) - 1, "parameters": parameters})
        elif "run" in told:
            say({"seconds": timed(functions[told["id"]], told["run"])})
        else:
            functions.clear()
            say({})


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
