"""Read the literal that a JavaScript module exports: ``module.exports = {…}``. Pure.

Objects, arrays, strings, numbers, booleans, null, comments and trailing commas are
read; anything that would have to be computed is an error that names its line.
"""

from __future__ import annotations

import re
from typing import Any, Final

from attrs import define

_BLANK: Final = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_START: Final = re.compile(r"module\s*\.\s*exports\s*=|export\s+default\b|(?=[{\[])")
_STRICT: Final = re.compile(r"""['"]use strict['"]\s*;?""")
_NAME: Final = re.compile(r"[A-Za-z_$][\w$]*")
_NUMBER: Final = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|\d+\.?\d*(?:[eE][-+]?\d+)?)")
_STRING: Final = re.compile(
    r'"((?:[^"\\\n]|\\.)*)"|\'((?:[^\'\\\n]|\\.)*)\'|`((?:[^`\\]|\\.)*)`', re.DOTALL
)
_ESCAPE: Final = re.compile(
    r"\\(u\{[0-9a-fA-F]+\}|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|\n|.)", re.DOTALL
)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}
_CONSTANTS: Final = {"true": True, "false": False, "null": None, "undefined": None}
_MAX_DEPTH: Final = 50


class JavaScriptError(ValueError):
    """The text is not a plain literal; the message names the line."""


def read_literal(text: str) -> Any:
    """Return the value that the module *text*, or the JSON document, consists of.

    Raises:
        JavaScriptError: it is not a plain literal.
    """
    reader = _Literal(text)
    reader.blank()
    if match := _STRICT.match(text, reader.at):
        reader.at = match.end()
        reader.blank()
    match = _START.match(text, reader.at)
    if match is None:
        raise reader.error("expected module.exports = { ... }")
    reader.at = match.end()
    value = reader.value(0)
    reader.blank()
    if text.startswith(";", reader.at):
        reader.at += 1
        reader.blank()
    if reader.at < len(text):
        raise reader.error("expected the end of the file")
    return value


@define
class _Literal:
    _text: str
    at: int = 0

    def error(self, problem: str) -> JavaScriptError:
        """Return an error at the current place."""
        line = self._text.count("\n", 0, self.at) + 1
        found = self._text[self.at : self.at + 30].partition("\n")[0] or "the end"
        return JavaScriptError(f"line {line}: {problem}, got {found!r}")

    def blank(self) -> None:
        """Skip blanks and comments."""
        match = _BLANK.match(self._text, self.at)
        assert match is not None, "the pattern matches the empty string"
        self.at = match.end()

    def value(self, depth: int) -> Any:
        """Return the value at the current place, and go behind it."""
        if depth > _MAX_DEPTH:
            raise self.error("nested too deeply")
        self.blank()
        mark = self._text[self.at : self.at + 1]
        if mark == "{":
            return self._object(depth)
        if mark == "[":
            return self._array(depth)
        if mark in ('"', "'", "`"):
            return self._string()
        if match := _NUMBER.match(self._text, self.at):
            self.at = match.end()
            return _number(match[0])
        if (match := _NAME.match(self._text, self.at)) and match[0] in _CONSTANTS:
            self.at = match.end()
            return _CONSTANTS[match[0]]
        raise self.error("not a plain literal; replace it by its value")

    def _object(self, depth: int) -> dict[str, Any]:
        self.at += 1
        found: dict[str, Any] = {}
        while not self._closes("}"):
            key = self._key()
            self.blank()
            if not self._text.startswith(":", self.at):
                raise self.error("expected ':'")
            self.at += 1
            found[key] = self.value(depth + 1)
            self._comma("}")
        return found

    def _array(self, depth: int) -> list[Any]:
        self.at += 1
        found: list[Any] = []
        while not self._closes("]"):
            found.append(self.value(depth + 1))
            self._comma("]")
        return found

    def _key(self) -> str:
        if self._text[self.at : self.at + 1] in ('"', "'"):
            return self._string()
        if match := _NAME.match(self._text, self.at) or _NUMBER.match(
            self._text, self.at
        ):
            self.at = match.end()
            return match[0]
        raise self.error("expected a key")

    def _string(self) -> str:
        match = _STRING.match(self._text, self.at)
        if match is None:
            raise self.error("the string is not closed")
        text = next(group for group in match.groups() if group is not None)
        if match[3] is not None and "${" in text:
            raise self.error("not a plain literal; replace it by its value")
        self.at = match.end()
        return _joined(_ESCAPE.sub(_unescaped_letter, text))

    def _closes(self, mark: str) -> bool:
        self.blank()
        if self._text.startswith(mark, self.at):
            self.at += 1
            return True
        if self.at >= len(self._text):
            raise self.error(f"expected '{mark}'")
        return False

    def _comma(self, closing: str) -> None:
        self.blank()
        if self._text.startswith(",", self.at):
            self.at += 1
        elif not self._text.startswith(closing, self.at):
            raise self.error(
                f"expected ',' or '{closing}'; only plain literals are read"
            )


def _number(text: str) -> int | float:
    if "x" in text.lower():
        return int(text, 16)
    return float(text) if re.search(r"[.eE]", text) else int(text)


def _unescaped_letter(match: re.Match[str]) -> str:
    what = match[1]
    if what[0] in "ux" and len(what) > 1:
        return chr(int(what[1:].strip("{}"), 16))
    return _ESCAPES.get(what, what)


def _joined(text: str) -> str:
    """Return *text* with pairs of surrogates as the letters that they mean."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
