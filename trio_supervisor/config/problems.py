"""Collect the mistakes of a configuration, each with its file, line and key."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from attrs import define, field, frozen

from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.config.positions import KeyPath
from trio_supervisor.errors import SpecError

_PARTS: Final = re.compile(r"\['((?:[^'\\]|\\.)*)'\]|\[(\d+)\]|([\w-]+)")
# A longer list would hide the nearest name.
_MAX_LISTED: Final = 12
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


@frozen(kw_only=True)
class ConfigFile:
    """A file, and the line of each of its keys."""

    path: str
    """Absolute."""
    shown: str
    """How messages name it."""
    values: dict[str, Any]
    lines: dict[KeyPath, int]
    first_line: int = 1

    def line_of(self, path: KeyPath) -> int:
        """Return the line of the key *path*, or of the nearest table around it."""
        for end in range(len(path), 0, -1):
            if (line := self.lines.get(path[:end])) is not None:
                return line
        return self.first_line

    def place(self, path: KeyPath) -> str:
        """Return file and line of the key *path*, for a message."""
        return f"{self.shown}, line {self.line_of(path)}"

    def named(self, path: KeyPath) -> str:
        """Return file, line and name of the key *path*, for a message."""
        return f"{self.place(path)}: {shown_path(path)}" if path else self.place(path)


@define
class Problems:
    """Mistakes that were found so far."""

    _found: list[tuple[str, int, SpecError]] = field(factory=list)

    def add(self, file: ConfigFile, path: KeyPath, problem: str) -> None:
        """Add a mistake in the key *path* of *file*."""
        error = SpecError(file.named(path), problem)
        self._found.append((file.shown, file.line_of(path), error))

    def add_error(self, file: ConfigFile, path: KeyPath, error: SpecError) -> None:
        """Add the *error* of an option below *path*."""
        self.add(file, (*path, *parts_of(error.field)), error.problem)

    def unknown(
        self, file: ConfigFile, path: KeyPath, known: Iterable[str], what: str = "key"
    ) -> None:
        """Add that the last part of *path* is none of the *known*."""
        names = sorted(known)
        hint = did_you_mean(path[-1], names)
        is_long = hint and len(names) > _MAX_LISTED
        expected = "" if is_long else f"; expected {', '.join(names)}"
        self.add(file, path, f"unknown {what}{hint}{expected}")

    def raise_if_any(self) -> None:
        """Raise one error that lists all mistakes, by file and line.

        Raises:
            SpecError: there are some.
        """
        if self._found:
            raise SpecError.of([each[2] for each in sorted(self._found, key=_order)])

    def __len__(self) -> int:
        return len(self._found)


def _order(found: tuple[str, int, SpecError]) -> tuple[str, int]:
    return found[0], found[1]


def shown_path(path: KeyPath) -> str:
    """Return *path* as TOML writes it, such as ``services.web.command[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if _PLAIN_KEY.fullmatch(part) else f'"{part}"'
            text += f".{key}" if text else key
    return text


def parts_of(field_path: str) -> KeyPath:
    """Return the parts of the path in a `SpecError`, such as ``limits['core'][0]``."""
    return tuple(
        int(number) if number else name or quoted
        for quoted, number, name in _PARTS.findall(field_path)
    )
