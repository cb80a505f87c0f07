"""Data sets from where their authors or a mirror keep them, checked byte by byte.

A file is fetched once, to the user's cache, and only kept where its SHA-256 is the one
written here.
"""

from dataclasses import dataclass
from pathlib import Path

import pooch


@dataclass(frozen=True)
class Source:
    """Where the files of a data set are.

    Attributes:
      base_url: what their names are appended to.
      files: the SHA-256 of each, by its name.
    """

    base_url: str
    files: dict[str, str]


MNIST = Source(
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    {
        "train-images-idx3-ubyte.gz": (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
        ),
        "train-labels-idx1-ubyte.gz": (
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
        ),
    },
)

FASHION_MNIST = Source(
    "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
    {
        "train-images-idx3-ubyte.gz": (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
        ),
        "train-labels-idx1-ubyte.gz": (
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
        ),
    },
)

CIFAR10 = Source(
    "https://www.cs.toronto.edu/~kriz/",
    {
        "cifar-10-binary.tar.gz": (
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
        )
    },
)


def fetch(name: str, source: Source, folder: Path | None = None) -> Path:
    """The folder where a data set's files are, after what was missing has arrived.

    Args:
      name: of the data set, and of its folder in the cache.
      source: where it is from.
      folder: where it goes, by default the user's cache.

    Raises:
      OSError: when a file is neither there nor can be fetched.
      ValueError: when what arrived is another file.
    """
    folder = folder or Path(pooch.os_cache("jaxcnn")) / name
    files = pooch.create(
        path=folder,
        base_url=source.base_url,
        registry={file: f"sha256:{digest}" for file, digest in source.files.items()},
    )
    for file in source.files:
        try:
            files.fetch(file, progressbar=True)
        except ValueError as error:
            raise ValueError(
                f"what {source.base_url}{file} holds is not the {file} of {name}: its "
                f"SHA-256 is not {source.files[file]}"
            ) from error
        except OSError as error:
            raise OSError(
                f"{source.base_url}{file} cannot be fetched ({type(error).__name__}): "
                f"put {', '.join(source.files)} into a folder and name it, as in "
                f"--dataset {name} --data-dir FOLDER"
            ) from error
    return folder
