"""Write TOML with comments, for converted configurations. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import define, field

from trio_supervisor.application.process_checks import Octal
from trio_supervisor.application.templates import escaped

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


@define
class Section:
    """A table, or commented-out lines without one."""

    header: str = ""
    """Such as ``services.web``; empty: only comments."""
    _lines: list[str] = field(factory=list)

    def set(self, key: str, value: Any, note: str = "") -> None:
        """Add ``key = value``, with *note* as a comment behind it."""
        text = f"{key_text(key)} = {value_text(value)}"
        self._lines.append(f"{text}  # {_one_line(note)}" if note else text)

    def note(self, text: str) -> None:
        """Add a comment."""
        self._lines.append(f"# {_one_line(text)}")

    def __str__(self) -> str:
        head = [f"[{self.header}]"] if self.header else []
        return "\n".join([*head, *self._lines]) + "\n"


def key_text(key: str) -> str:
    """Return *key*, quoted if needed."""
    return key if _BARE.fullmatch(key) else value_text(key)


def table_name(*keys: str) -> str:
    """Return the header of the table *keys*."""
    return ".".join(map(key_text, keys))


def value_text(value: Any) -> str:
    """Return *value* as TOML."""
    match value:
        case bool():
            return "true" if value else "false"
        case Octal():
            return repr(value)
        case int() | float():
            return f"{value:g}" if isinstance(value, float) else str(value)
        case str():
            # JSON escapes what TOML does, but for DEL.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            pairs = (f"{key_text(k)} = {value_text(v)}" for k, v in value.items())
            return f"{{ {', '.join(pairs)} }}" if value else "{}"
        case Sequence():
            return f"[{', '.join(map(value_text, value))}]"
    raise TypeError(f"no TOML value: {value!r}")


def literal(text: str) -> str:
    """Return the value of an option that means *text* as it is."""
    return escaped(text).replace("${", "$${")


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
