"""Files that others wrote: read within bounds, and refused by their names."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from experiments.run.terminal import shown

MOST = 2**28
"""How many bytes of data are taken from one file, decompressed: all of CIFAR-10 has two
thirds of them. A few kilobytes can be decompressed to gigabytes."""


@contextmanager
def reading(path: Path, fault: str) -> Iterator[None]:
    """Whatever is raised inside is about this file.

    What reads a format answers a damaged file with whatever its code trips over: KeyError,
    zipfile.BadZipFile, RecursionError, MemoryError, … So this is the one place where any
    exception is taken for the file's fault; only reading belongs inside.

    Args:
      path: of the file.
      fault: what is wrong with it then, such as "is no picture".

    Raises:
      OSError: when the operating system does not let the file be read.
      ValueError: when something is wrong with what it holds.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        reason = str(error).strip().partition("\n")[0]
        if not isinstance(error, (ValueError, OSError)):
            reason = f"{reason} ({type(error).__name__})".strip()
        raise ValueError(f"{shown(path)} {fault}: {reason}") from error


def opened(path: Path) -> IO[bytes]:
    """The bytes of a file; of a gzip file, whose name ends in .gz, what was compressed.

    Whoever reads a gzip file to its end has had its checksum compared.
    """
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def read_up_to(file: IO[bytes], count: int) -> bytearray:
    """So many bytes, or those up to the end, in the memory that they take."""
    content = bytearray()
    while part := file.read(min(count - len(content), 2**16)):
        content += part
    return content


def content_of(path: Path, most: int) -> bytearray:
    """All that :func:`opened` has, checksum included.

    Raises:
      ValueError: when it is too much.
    """
    with opened(path) as file:
        content = read_up_to(file, most + 1)
    if len(content) > most:
        raise ValueError(f"it holds more than {most:,} bytes")
    return content
