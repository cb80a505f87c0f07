"""Files that are fetched: kept where they are the right ones, and refused otherwise."""

import hashlib
import http.server
import threading
from functools import partial

import pytest

from experiments.data import download, sets
from tests.experiments.test_data import write_mnist


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(tmp_path, rng):
    """MNIST's files, of random images, served on this machine: their folder and source."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    write_mnist(folder, rng, ".gz")
    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        digests = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.iterdir()
        }
        yield folder, download.Source(f"http://127.0.0.1:{server.server_port}/", digests)
        server.shutdown()


def test_what_is_missing_is_fetched_once(tmp_path, mirror, monkeypatch):
    served, source = mirror
    folder = download.fetch("mnist", source, tmp_path / "cache")
    assert sets.mnist(folder).train.images.shape == (40, 28, 28, 1)
    for path in served.iterdir():
        path.unlink()
    assert download.fetch("mnist", source, tmp_path / "cache") == folder
    monkeypatch.setattr(download, "MNIST", source)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    with pytest.raises(
        OSError, match=r"cannot be fetched \(HTTPError\): put .*ubyte.gz into a folder"
    ):
        sets.mnist()


def test_another_file_is_refused_and_not_kept(tmp_path, mirror):
    served, source = mirror
    (served / "t10k-labels-idx1-ubyte.gz").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"is not the t10k-labels-idx1-ubyte.gz of mnist"):
        download.fetch("mnist", source, tmp_path)
    assert not (tmp_path / "t10k-labels-idx1-ubyte.gz").exists()


def test_a_file_that_was_damaged_in_the_cache_is_fetched_again(tmp_path, mirror):
    _, source = mirror
    path = download.fetch("mnist", source, tmp_path) / "t10k-labels-idx1-ubyte.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    download.fetch("mnist", source, tmp_path)
    assert path.read_bytes() == whole


def test_offline_it_is_said_which_files_to_put_where(tmp_path):
    nobody = download.Source("http://127.0.0.1:9/", download.CIFAR10.files)
    with pytest.raises(OSError, match=r"put cifar-10-binary.tar.gz into a folder") as error:
        download.fetch("cifar10", nobody, tmp_path)
    assert "--dataset cifar10 --data-dir FOLDER" in str(error.value)
