"""Names of files on a terminal: seen, never obeyed."""

import sys

import pytest

from experiments.run import command, terminal
from experiments.run.terminal import shown
from tests.experiments.test_command import Settings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Ziffer 7 é 数字 🙂.png", "Ziffer 7 é 数字 🙂.png"),
        ("\x1b[2J\x1b]52;c;bHM=\x07", r"\x1b[2J\x1b]52;c;bHM=\x07"),
        ("\x9b2J\r\b\n\t\x7f\0", r"\x9b2J\r\x08\n\t\x7f\x00"),
        ("a\u202egnp.exe\u2066\u200f\u2028", r"a\u202egnp.exe\u2066\u200f\u2028"),
        (b"\xff\xc3.png".decode(errors="surrogateescape"), r"\xff\xc3.png"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, said):
    assert shown(text) == said
    assert shown(text).isprintable()
    shown(text).encode()


def test_the_console_prints_texts_as_they_are(capsys):
    terminal.console().print("a[/b] [red] :smile:")
    assert capsys.readouterr().out == "a[/b] [red] :smile:\n"


def test_an_error_of_a_command_keeps_its_lines_and_nothing_else_that_moves(monkeypatch):
    def main(settings):
        raise FileNotFoundError("\x1b[2J\udcff is missing\nas is another")

    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit) as stopped:
        command.run(main, Settings, "What it is for.")
    assert stopped.value.code == "error: \\x1b[2J\\xff is missing\nas is another"
