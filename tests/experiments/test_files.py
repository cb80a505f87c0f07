"""Files that scripts write: whole or not at all, and nothing else of anybody's."""

import json
import resource
import stat
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from experiments.run import run_folder
from experiments.run.files import must_be_new, replacing, write_json, write_together


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"a": 1})

    def fail_half_way():
        with replacing(path) as partial:
            partial.write_text("half of")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_nobody_can_foretell_where_a_file_is_written_first(tmp_path):
    path, victim = tmp_path / "results.json", tmp_path / "victim"
    victim.write_text("precious")
    places = []
    for _ in range(2):
        with replacing(path) as partial:
            partial.write_text("{}")
            places.append(partial)
            assert stat.S_IMODE(partial.parent.stat().st_mode) == 0o700
    assert places[0] != places[1]
    # Where files were once written first, a link led anywhere.
    (tmp_path / ".results.partial.json").symlink_to(victim)
    write_json(path, {"a": 1})
    assert victim.read_text() == "precious"
    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize("name", [255 * "n", 127 * "é", "*", "a*b{}.json"])
def test_a_file_may_have_any_name_that_the_system_takes(tmp_path, name):
    write_json(tmp_path / name, 1)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "1\n"


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path):
    path, victim = tmp_path / "results.json", tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    write_json(path, {"a": 1})
    assert victim.read_text() == "precious"
    assert not path.is_symlink()


def test_two_that_write_the_same_file_at_once_write_it_whole_each(tmp_path):
    path = tmp_path / "results.txt"
    with replacing(path) as one, replacing(path) as other:
        one.write_text("one")
        other.write_text("the other")
    assert path.read_text() == "one"  # which was ready last
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_has_the_permissions_of_any_new_file(tmp_path):
    write_json(tmp_path / "a.json", {})
    (tmp_path / "b.json").write_text("{}")
    one, other = ((tmp_path / name).stat().st_mode for name in ("a.json", "b.json"))
    assert one == other


def test_files_that_belong_together_are_written_together(tmp_path):
    (tmp_path / "b").mkdir()  # where a file should go
    with pytest.raises(OSError, match=f"{tmp_path}/b cannot be written"):
        write_together(tmp_path, {"b": b"", "a": b""})
    write_together(tmp_path / "new", {"a": b"1", "c": b"2"})
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"a", "c"}


@contextmanager
def full_disk():
    """Files of more than 100 bytes fail, as all do where there is no room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("results.json", lambda path: write_json(path, "long" * 100)),
        (
            "parameters.npz",
            lambda path: run_folder.save_parameters(path, {"w": np.ones(1000)}),
        ),
        (
            "metrics.jsonl",
            lambda path: run_folder.append_line(path, {"long" * 100: 1}),
        ),
    ],
)
def test_a_file_for_which_there_is_no_room_is_named(tmp_path, name, write):
    with pytest.raises(OSError, match=rf"{name} cannot be written: .*File too large"):  # noqa: SIM117
        with full_disk():
            write(tmp_path / name)
    assert not list(tmp_path.glob(".*"))


def test_a_link_that_leads_nowhere_is_not_overwritten(tmp_path):
    (tmp_path / "new").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match=r"--output .*new exists"):
        must_be_new("--output", tmp_path / "new")
    with pytest.raises(FileExistsError, match=r"--run-dir .*new exists"):
        run_folder.create(Path(tmp_path, "new"))
