"""Pages that need nothing but themselves: the pictures are within them."""

import base64
from pathlib import Path
from typing import Any, NamedTuple

import jinja2


class Picture(NamedTuple):
    """A PNG, and what it shows in words."""

    png: bytes
    alt: str

    @property
    def uri(self) -> str:
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def rendered(template: Path, **facts: Any) -> str:
    """The template, filled in: everything in it has to be known, and is text, no markup."""
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.from_string(template.read_text(encoding="utf-8")).render(**facts)
