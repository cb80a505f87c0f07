"""From JSON to the dataclasses that it was made of, checked field by field."""

import dataclasses
import reprlib
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints


def from_json(kind: Any, content: Any, name: str = "it") -> Any:
    """A value of a type from its JSON.

    Args:
      kind: a dataclass, whose fields have types that can stand here in their turn: bool,
        int, float, str, Path, a literal, a tuple, or one of these or None.
      content: as :func:`json.loads` gives it.
      name: of the value, for the error.

    Raises:
      ValueError: when the content is of another type; and what the dataclass raises.
    """
    choices = get_args(kind)
    if (
        isinstance(kind, type)
        and dataclasses.is_dataclass(kind)
        and isinstance(content, dict)
    ):
        types = get_type_hints(kind)
        for fault, fields in (
            ("is missing", types.keys() - content.keys()),
            (f"is unknown; there are {', '.join(types)}", content.keys() - types.keys()),
        ):
            if fields:
                raise ValueError(f"{reprlib.repr(min(fields))} {fault}")
        return kind(**{each: from_json(types[each], content[each], each) for each in types})
    if get_origin(kind) is tuple and isinstance(content, list):
        if choices[1:] == (...,):
            choices = choices[:1] * len(content)
        if len(choices) == len(content):
            return tuple(map(from_json, choices, content, [name] * len(content)))
    elif get_origin(kind) is Literal and isinstance(content, str) and content in choices:
        return content
    elif NoneType in choices:
        (other,) = set(choices) - {NoneType}
        return None if content is None else from_json(other, content, name)
    elif kind is Path and isinstance(content, str):
        return Path(content)
    elif kind is float and type(content) is int:
        return float(content)
    elif type(content) is kind:
        return content
    wanted = " or ".join(map(repr, choices)) if get_origin(kind) is Literal else _said(kind)
    raise ValueError(f"{name} is {reprlib.repr(content)}; it must be {wanted}")


def _said(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
