"""What is shown on a terminal: names of files are data there, never commands or markup."""

from rich.console import Console


def shown(text: object, keep: str = "") -> str:
    r"""A text as a terminal may have it: whatever it would obey, or not show, is escaped.

    Names of files can hold sequences that clear the screen, write to the clipboard or turn
    the text around, and bytes that are no UTF-8.

    Args:
      text: a name, or what is made of names.
      keep: the characters that stay in any case.

    >>> print(shown("a\x1b[2J\u202eb\udcff.png"))
    a\x1b[2J\u202eb\xff.png
    """
    return "".join(
        each if each.isprintable() or each in keep else _escaped(each) for each in str(text)
    )


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python writes a byte that is no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def console(quiet: bool = False) -> Console:
    """Prints texts as they are: neither ``[b]`` nor ``:smile:`` means anything."""
    return Console(quiet=quiet, markup=False, emoji=False)
