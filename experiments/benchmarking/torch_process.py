"""How the benchmark speaks with another process, ``torch_worker``, in which PyTorch
runs."""

import json
import os
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.benchmarking.cases import Layer, Pool
from experiments.benchmarking.timing import Contestant

ROOT = Path(__file__).resolve().parents[2]
KEEPS_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
"""As :func:`jaxcnn.keep_memory` does in this process."""


class TorchWorker:
    """PyTorch in a process of its own; a context manager that ends it.

    Args:
      interpreter: the Python that has PyTorch.
      device: ``"cpu"`` or ``"cuda"``.

    Raises:
      RuntimeError: when the interpreter has no PyTorch, or no such device, or the process
        failed.
    """

    def __init__(self, interpreter: str, device: str = "cpu"):
        self.process = subprocess.Popen(
            [interpreter, "-m", "experiments.benchmarking.torch_worker", device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **KEEPS_MEMORY, "PYTHONPATH": str(ROOT)},
        )
        self.version: str = self._answer()["torch"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate()

    def contestants(
        self,
        kind: str,
        case: Layer | Pool | str,
        mode: str,
        dtype: str = "float32",
        images: int | None = None,
    ) -> list[Contestant]:
        """PyTorch in both memory formats; networks with so many images, or their usual."""
        made = []
        for layout in "NCHW", "NHWC":
            answer = self._ask(
                prepare={
                    "kind": kind,
                    "case": case if isinstance(case, str) else asdict(case),
                    "layout": layout,
                    "mode": mode,
                    "dtype": dtype,
                    "images": images,
                }
            )
            made.append(self._contestant(layout, mode, answer["id"]))
        return made

    def parameters(self, network: str) -> int:
        """How many parameters PyTorch's version of a network has."""
        what = {"kind": "network", "case": network, "layout": "NCHW", "images": None}
        return self._ask(prepare=what)["parameters"]

    def forget(self) -> None:
        """Let all contestants go."""
        self._ask(forget=True)

    def _contestant(self, layout: str, mode: str, identity: int) -> Contestant:
        def run(calls):
            return self._ask(run=calls, id=identity)["seconds"]

        return Contestant("torch", layout, mode, run)

    def _ask(self, **what: Any) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            said = self.process.communicate()[1].strip().splitlines()
            raise RuntimeError(f"PyTorch's process ended: {said[-1] if said else '?'}")
        return json.loads(line)
