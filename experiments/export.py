"""Write a saved run's model to one file that needs neither this package nor the run.

    python -m experiments.export runs/NAME
    python -m experiments.export runs/NAME --output model.jaxexport --platforms cpu cuda

The file is an artifact of :mod:`jax.export`: the program, its parameters included, from
images as the data set stores them, bytes ``(B, H, W, C)`` for any B from 1, to the
probabilities of the classes, float32 ``(B, classes)``, and then its SHA-256, 32 bytes. JAX
promises to read it for half a year of newer versions.

Claim: whoever has JAX, and nothing else, gets what the model gives.

Method: the file is read back by a process in which ``jaxcnn`` and ``experiments`` cannot be
imported, and is kept only if its probabilities are the model's, to rounding.

The guide: docs/runs.md.
"""

import dataclasses
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import export
from jaxtyping import UInt8

from experiments.run import command, saved_run
from experiments.run.command import ClaimError
from experiments.run.files import must_be_new, replacing
from experiments.run.saved_run import SavedRun
from experiments.run.terminal import shown

Platform = Literal["cpu", "cuda", "rocm", "tpu"]

USE = """\
from hashlib import sha256
from pathlib import Path
import numpy as np
from jax import export

images = {images}
path = Path({path!r})
content = path.read_bytes()
program, digest = content[:-32], content[-32:]
if sha256(program).digest() != digest:
    raise ValueError(f"{{path}} is damaged: its last 32 bytes are not the others' SHA-256")
model = export.deserialize(program)
probabilities = model.call(images)
"""
"""How another program uses the file: these lines are printed, and these are checked."""

WITHOUT_THIS_PACKAGE = """\
import sys
sys.modules["jaxcnn"] = sys.modules["experiments"] = None  # importing them fails
"""

ROUNDING = {"float32": 1e-5, "bfloat16": 2e-2}
"""How far two compilations may be apart, in each precision of a model."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Write a saved run's model to one file that needs neither this package nor the run."""

    run_folder: tyro.conf.Positional[Path]
    """What experiments.train left behind."""
    output: Path | None = None
    """A new file; by default model.jaxexport in the run folder, which is replaced."""
    platforms: tuple[Platform, ...] = ("cpu", "cuda", "rocm", "tpu")
    """What the file runs on; the CPU, on which it is checked, must be among them."""


def main(settings: Settings) -> float:
    """Write the file, check it, and return how far its probabilities are off."""
    platforms = tuple(dict.fromkeys(settings.platforms))
    if "cpu" not in platforms:
        raise ValueError(
            f"--platforms is {' '.join(platforms) or 'empty'}; cpu must be among them, for "
            f"on it the file is checked"
        )
    if settings.output is not None:
        must_be_new("--output", settings.output)
    run = saved_run.load(settings.run_folder)
    path = settings.output or run.folder / "model.jaxexport"
    with replacing(path) as partial:
        partial.write_bytes(artifact(run, platforms))
        deviation = checked(partial, run)
    print(
        f"{shown(path)}: {path.stat().st_size:,} bytes, for {', '.join(platforms)}\n"
        f"In a process without this package, its probabilities were at most "
        f"{deviation:.1e} from the model's.\n"
        f"In another program:\n"
    )
    shape = (5, *run.description.shape)
    print(USE.format(images=f"np.zeros({shape}, np.uint8)", path=str(path)))
    return deviation


def artifact(run: SavedRun, platforms: tuple[Platform, ...]) -> bytes:
    """The model in one file, for any number of images from 1, and the file's SHA-256.

    JAX itself checks nothing: it reads most damaged files, and they answer other numbers.
    It does not mind what comes after the program, either.

    JAX refuses to export what it does not promise to keep running, so that what is here
    holds no such operation.
    """
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *run.description.shape), jnp.uint8)
    exported = export.export(jax.jit(run.probabilities), platforms=platforms)(images)
    return with_digest(exported)


def with_digest(exported: export.Exported) -> bytes:
    """A program and its SHA-256, as :data:`USE` reads them."""
    program = bytes(exported.serialize())
    return program + hashlib.sha256(program).digest()


def checked(path: Path, run: SavedRun) -> float:
    """How far a file's probabilities are from the model's, in a process of its own.

    Raises:
      ClaimError: when that is more than rounding, or the file cannot be used.
    """
    images = random_images(run)
    with jax.default_device(jax.devices("cpu")[0]):
        expected = np.asarray(run.probabilities(images))
    alone, together = _probabilities(path, images)
    deviation = max(
        float(np.max(np.abs(alone - expected[:1]))),
        float(np.max(np.abs(together - expected))),
    )
    if not deviation <= ROUNDING[run.options.precision]:
        raise ClaimError(
            f"the file's probabilities were {deviation} from the model's, which is more "
            f"than rounding; it was not kept"
        )
    return deviation


def random_images(run: SavedRun, count: int = 64) -> UInt8[np.ndarray, "N H W C"]:
    """Noise of every contrast, the faintest first: a model is not sure of all of them."""
    rng = np.random.default_rng(0)
    contrast = np.linspace(0, 1, count).reshape(-1, 1, 1, 1)
    noise = rng.integers(0, run.description.white + 1, (count, *run.description.shape))
    return np.rint(contrast * noise).astype(np.uint8)


def _probabilities(path: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a process that knows nothing of this package gets of the first image alone, and
    of all of them."""
    with tempfile.TemporaryDirectory() as folder:
        given, got = Path(folder, "images.npy"), Path(folder, "probabilities.npz")
        np.save(given, images)
        use = USE.format(images=f"np.load({str(given)!r})", path=str(path.absolute()))
        save = f"np.savez({str(got)!r}, a=model.call(images[:1]), b=probabilities)"
        process = subprocess.run(
            [sys.executable, "-c", WITHOUT_THIS_PACKAGE + use + save],
            cwd=folder,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            raise ClaimError(
                f"the file cannot be used, and was not kept: {process.stderr.strip()}"
            )
        with np.load(got) as probabilities:
            return probabilities["a"], probabilities["b"]


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
