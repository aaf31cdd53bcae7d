"""Find the line of each key in a TOML document that tomllib has accepted. Pure.

tomllib returns values without their places, and an error must name the line.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final, TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]
"""Keys of tables, and indexes of arrays."""

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR: Final = re.compile(r"[^,\]}\n#]*")
_STRINGS: Final = (
    re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}', re.DOTALL),
    re.compile(r"'''.*?'{3,5}", re.DOTALL),
    re.compile(r'"((?:[^"\\]|\\.)*)"'),
    re.compile(r"'([^']*)'"),
)
_ESCAPE: Final = re.compile(r"\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", re.DOTALL)
_ESCAPES: Final = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


def lines_of(text: str) -> dict[KeyPath, int]:
    """Return the line of each key and array item in *text*, from 1 on."""
    # tomllib reads a carriage return before a newline as a part of the newline.
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.scan()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text
        self._at = 0
        self._newlines = [n for n, letter in enumerate(text) if letter == "\n"]
        self._counts: dict[KeyPath, int] = {}
        """Number of tables so far in each array of tables."""

    def scan(self) -> None:
        table: KeyPath = ()
        while True:
            self._skip(_BLANK)
            if self._at >= len(self._text):
                return
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> KeyPath:
        line = self._line()
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        keys = self._keys()
        self._at += 2 if is_array else 1
        path: KeyPath = ()
        for key in keys[:-1]:
            path = self._entered((*path, key), line)
        path = (*path, keys[-1])
        if not is_array:
            return self._entered(path, line)
        self.lines.setdefault(path, line)
        number = self._counts[path] = self._counts.get(path, -1) + 1
        path = (*path, number)
        self.lines.setdefault(path, line)
        return path

    def _entered(self, path: KeyPath, line: int) -> KeyPath:
        """Return *path*, with the index of the last table if it is an array."""
        self.lines.setdefault(path, line)
        return (*path, self._counts[path]) if path in self._counts else path

    def _pair(self, table: KeyPath) -> None:
        line = self._line()
        path = table
        for key in self._keys():
            path = (*path, key)
            self.lines.setdefault(path, line)
        self._at += 1  # "="
        self._skip(_SPACE)
        self._value(path)

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip(_SPACE)
            keys.append(self._key())
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _key(self) -> str:
        for pattern, is_basic in ((_STRINGS[2], True), (_STRINGS[3], False)):
            if match := pattern.match(self._text, self._at):
                self._at = match.end()
                return _ESCAPE.sub(_unescaped, match[1]) if is_basic else match[1]
        match = _BARE.match(self._text, self._at)
        assert match is not None, "tomllib accepted the document"
        self._at = match.end()
        return match[0]

    def _value(self, path: KeyPath) -> None:
        opening = self._text[self._at : self._at + 1]
        if opening == "[":
            self._items(path)
        elif opening == "{":
            self._inline_table(path)
        elif opening in ('"', "'"):
            found = (each.match(self._text, self._at) for each in _STRINGS)
            self._at = next(match.end() for match in found if match is not None)
        else:
            self._skip(_SCALAR)

    def _items(self, path: KeyPath) -> None:
        self._at += 1
        number = 0
        while not self._closes("]"):
            self.lines[*path, number] = self._line()
            self._value((*path, number))
            number += 1
            self._comma()

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while not self._closes("}"):
            self._pair(path)
            self._comma()

    def _closes(self, mark: str) -> bool:
        self._skip(_BLANK)
        if self._text.startswith(mark, self._at):
            self._at += 1
            return True
        return False

    def _comma(self) -> None:
        self._skip(_BLANK)
        self._at += self._text.startswith(",", self._at)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        assert match is not None, "the pattern matches the empty string"
        self._at = match.end()

    def _line(self) -> int:
        return bisect_right(self._newlines, self._at - 1) + 1


def _unescaped(match: re.Match[str]) -> str:
    what = match[1]
    if what[0] in "uU" and len(what) > 1:
        return chr(int(what[1:], 16))
    return _ESCAPES.get(what, what)
