"""Read the value that a JavaScript module exports: ``module.exports = {…}``. Pure.

Objects, arrays, strings, numbers, booleans, null, comments and trailing commas are
read, and what configuration files do with them: constants declared before, spreads,
members, ``+``, ``||``, ``??``, ``&&``, ``===``, ``?:``, ``path.join`` and
``process.env``. Anything else is an error that names its line. Nothing loops or calls.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from attrs import define, field

from trio_supervisor.config.javascript_values import (
    ESCAPE,
    OPERATORS,
    Module,
    is_comparable,
    is_true,
    joined,
    number_of,
    size_of,
    text_of,
    unescaped_letter,
)

_BLANK: Final = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_START: Final = re.compile(r"module\s*\.\s*exports\s*=|export\s+default\b|(?=[{\[])")
_STRICT: Final = re.compile(r"""['"]use strict['"]\s*;?""")
_NAME: Final = re.compile(r"[A-Za-z_$][\w$]*")
_NUMBER: Final = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|\d+\.?\d*(?:[eE][-+]?\d+)?)")
_STRING: Final = re.compile(
    r'"((?:[^"\\\n]|\\.)*)"|\'((?:[^\'\\\n]|\\.)*)\'|`((?:[^`\\]|\\.)*)`', re.DOTALL
)
_CONSTANTS: Final = {"true": True, "false": False, "null": None, "undefined": None}
_MAX_DEPTH: Final = 50


_DECLARATION: Final = re.compile(r"(?:const|let|var)\b")
_REQUIRE: Final = re.compile(r"""require\s*\(\s*['"](?:node:)?([\w./-]+)['"]\s*\)""")
_IMPORT: Final = re.compile(
    r"""import\s+(?:\*\s+as\s+)?([\w$]+)\s+from\s+['"](?:node:)?([\w./-]+)['"]"""
)
_CONDITION: Final = re.compile(r"\?(?![?.])")
_RESERVED: Final = ("function", "new", "class", "async", "await", "if", "for", "while")
_NOT_PLAIN: Final = "not a plain literal; replace it by its value"


_PIECE: Final = re.compile(r"(?:[^`\\$]|\\.|\$(?!\{))*", re.DOTALL)
_JOINING: Final = ("path.join", "path.resolve")
_MOST: Final = 100_000
"""Values and letters that all uses of constants together may have."""


class JavaScriptError(ValueError):
    """The text cannot be read; the message names the line."""


def read_literal(text: str, environment: Mapping[str, str] | None = None) -> Any:
    """Return the value that the module *text*, or the JSON document, consists of.

    Args:
        environment: What ``process.env`` is; nothing by default.

    Raises:
        JavaScriptError: it cannot be read.
    """
    reader = _Expressions(text, {"process": {"env": dict(environment or {})}})
    reader.declarations()
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
    return _plain(value, reader)


@define
class _Expressions:
    _text: str
    _scope: dict[str, Any]
    at: int = 0
    _cost: int = field(default=0, init=False)
    """Values made so far: a constant may be used often."""
    _skipped: int = field(default=0, init=False)
    """Above 0 in an operand that JavaScript would not evaluate."""

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

    def declarations(self) -> None:
        """Read what stands before the exported value."""
        while True:
            self.blank()
            if match := _STRICT.match(self._text, self.at):
                self.at = match.end()
            elif match := _IMPORT.match(self._text, self.at):
                self.at = match.end()
                self._scope[match[1]] = Module(match[2])
            elif match := _DECLARATION.match(self._text, self.at):
                self.at = match.end()
                self._declare()
                while self._takes(","):
                    self._declare()
            elif not self._takes(";"):
                return

    def _declare(self) -> None:
        names = self._names()
        if not self._takes("="):
            raise self.error("expected '='")
        value = self.value(0)
        if isinstance(names, str):
            self._scope[names] = value
        else:  # const { join } = require("path")
            for name in names:
                self._scope[name] = self._member(value, name)

    def _names(self) -> str | list[str]:
        self.blank()
        if not self._takes("{"):
            return self._name()
        found = [self._name()]
        while self._takes(","):
            found.append(self._name())
        if not self._takes("}"):
            raise self.error("expected '}'")
        return found

    def _name(self) -> str:
        self.blank()
        if (match := _NAME.match(self._text, self.at)) is None:
            raise self.error("expected a name")
        self.at = match.end()
        return match[0]

    def _takes(self, *marks: str) -> str:
        """Go behind one of *marks*, the longest first, if it is here; return it."""
        self.blank()
        for mark in marks:
            if self._text.startswith(mark, self.at):
                self.at += len(mark)
                return mark
        return ""

    def value(self, depth: int) -> Any:
        """Return the value of the expression at the current place, and go behind it."""
        if depth > _MAX_DEPTH:
            raise self.error("nested too deeply")
        found = self._binary(depth, 0)
        self.blank()
        if _CONDITION.match(self._text, self.at):
            self.at += 1
            with self._unevaluated(not is_true(found)):
                yes = self.value(depth + 1)
            if not self._takes(":"):
                raise self.error("expected ':'")
            with self._unevaluated(is_true(found)):
                no = self.value(depth + 1)
            return yes if is_true(found) else no
        return found

    def _binary(self, depth: int, level: int) -> Any:
        if level == len(OPERATORS):
            return self._unary(depth)
        operators = OPERATORS[level]
        found = self._binary(depth, level + 1)
        while mark := self._takes(*operators):
            with self._unevaluated(_is_decided(mark, found)):
                other = self._binary(depth, level + 1)
            if mark in ("==", "!=") and not is_comparable(found, other):
                raise self.error(f"'{mark}' of values of different types before")
            found = operators[mark](found, other)
            self._charge(found)
        return found

    def _unary(self, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise self.error("nested too deeply")
        self.blank()
        if self._text.startswith("!", self.at):
            self.at += 1
            return not is_true(self._unary(depth + 1))
        found = self._primary(depth)
        while mark := self._takes("?.", ".", "[", *("(" * self._skipped)[:1]):
            if mark == "(":
                self._arguments(depth)
                found = None
                continue
            if mark == "?." and found is None:
                with self._unevaluated(True):
                    self._name()
                continue
            if mark != "[":
                name = self._name()
            else:
                name = text_of(self.value(depth + 1))
                if not self._takes("]"):
                    raise self.error("expected ']'")
            found = self._member(found, name)
        return found

    def _primary(self, depth: int) -> Any:
        mark = self._text[self.at : self.at + 1]
        if mark == "{":
            return self._object(depth)
        if mark == "[":
            return self._array(depth)
        if mark == "(":
            self.at += 1
            found = self.value(depth + 1)
            if not self._takes(")"):
                raise self.error("expected ')'")
            return found
        if mark in ('"', "'", "`"):
            return self._string(depth)
        if match := _NUMBER.match(self._text, self.at):
            try:
                number = number_of(match[0])
            except ValueError:
                raise self.error("a number that is too large") from None
            self.at = match.end()
            return number
        if match := _REQUIRE.match(self._text, self.at):
            self.at = match.end()
            return Module(match[1])
        if match := _NAME.match(self._text, self.at):
            return self._known(match[0], depth)
        raise self.error(_NOT_PLAIN)

    def _known(self, name: str, depth: int) -> Any:
        if name in _CONSTANTS:
            self.at += len(name)
            return _CONSTANTS[name]
        if name == "__dirname":
            self.at += len(name)
            return "."
        if self._skipped and name not in _RESERVED and name not in self._scope:
            self.at += len(name)
            return None
        if name in _RESERVED or name not in self._scope:
            raise self.error(_NOT_PLAIN)
        begin, value = self.at, self._scope[name]
        self.at += len(name)
        is_path = isinstance(value, Module) and value.name == "path"
        if is_path and self._takes("."):
            value = Module(f"path.{self._name()}")
        if isinstance(value, Module):
            if value.name not in _JOINING or not self._takes("("):
                self.at = begin
                raise self.error(_NOT_PLAIN)
            parts = self._arguments(depth)
            is_resolve = value.name == "path.resolve"
            path = posixpath.join(*parts) if is_resolve and parts else "/".join(parts)
            return posixpath.normpath(path)
        self._charge(value)
        return value

    def _arguments(self, depth: int) -> list[str]:
        found: list[str] = []
        while not self._closes(")"):
            found.append(text_of(self.value(depth + 1)))
            self._comma(")")
        return found

    @contextmanager
    def _unevaluated(self, is_skipped: bool) -> Iterator[None]:
        """Read what JavaScript would not evaluate, if so: it may be anything."""
        self._skipped += is_skipped
        yield
        self._skipped -= is_skipped

    def _member(self, value: Any, name: str) -> Any:
        if self._skipped and not isinstance(value, dict):
            return None
        if isinstance(value, Module):
            return Module(f"{value.name}.{name}")
        if isinstance(value, dict):
            return value.get(name)
        if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            return value[int(name)]
        if isinstance(value, list | str) and name == "length":
            return len(value)
        raise self.error(f"what has {name!r} is not an object here")

    def _charge(self, value: Any) -> None:
        """Refuse what is small as text and huge as a value."""
        self._cost += size_of(value)
        if self._cost > _MOST:
            raise self.error("the value is too large")

    def _object(self, depth: int) -> dict[str, Any]:
        self.at += 1
        found: dict[str, Any] = {}
        while not self._closes("}"):
            if self._takes("..."):
                found |= self._spread(depth, dict)
                self._comma("}")
                continue
            begin = self.at
            key = self._key(depth)
            if self._takes(":"):
                found[key] = self.value(depth + 1)
            elif key in self._scope and self._text[self.at : self.at + 1] in ",}":
                found[key] = self._scope[key]
                self._charge(found[key])
            else:
                if self._text.startswith("(", self.at):
                    self.at = begin
                    raise self.error(_NOT_PLAIN)
                raise self.error("expected ':'")
            self._comma("}")
        return found

    def _spread(self, depth: int, kind: type[Any]) -> Any:
        begin = self.at
        value = self.value(depth + 1)
        if kind is dict and not is_true(value):
            return {}  # ...(condition && {...})
        if not isinstance(value, kind):
            self.at = begin
            raise self.error("cannot be spread here")
        return value

    def _array(self, depth: int) -> list[Any]:
        self.at += 1
        found: list[Any] = []
        while not self._closes("]"):
            if self._takes("..."):
                found += self._spread(depth, list)
            else:
                found.append(self.value(depth + 1))
            self._comma("]")
        return found

    def _key(self, depth: int) -> str:
        if self._text[self.at : self.at + 1] in ('"', "'"):
            return self._string(depth)
        if self._text.startswith("[", self.at):
            self.at += 1
            key = text_of(self.value(depth + 1))
            if not self._takes("]"):
                raise self.error("expected ']'")
            return key
        if match := _NAME.match(self._text, self.at) or _NUMBER.match(
            self._text, self.at
        ):
            self.at = match.end()
            return match[0]
        raise self.error("expected a key")

    def _string(self, depth: int) -> str:
        match = _STRING.match(self._text, self.at)
        if match is None:
            raise self.error("the string is not closed")
        text = next(group for group in match.groups() if group is not None)
        if match[3] is not None and "${" in text:
            return "".join(self._template(depth))
        self.at = match.end()
        return joined(ESCAPE.sub(unescaped_letter, text))

    def _template(self, depth: int) -> Iterator[str]:
        self.at += 1
        while not self._text.startswith("`", self.at):
            if self._text.startswith("${", self.at):
                self.at += 2
                yield text_of(self.value(depth + 1))
                if not self._takes("}"):
                    raise self.error("expected '}'")
                continue
            match = _PIECE.match(self._text, self.at)
            if match is None or not match[0]:
                raise self.error("the string is not closed")
            self.at = match.end()
            yield joined(ESCAPE.sub(unescaped_letter, match[0]))
        self.at += 1

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
            raise self.error(f"expected ',' or '{closing}'")


def _is_decided(mark: str, found: Any) -> bool:
    """Return whether *found* alone is the result of the operator *mark*."""
    if mark == "||":
        return is_true(found)
    if mark == "&&":
        return not is_true(found)
    return mark == "??" and found is not None


def _plain(value: Any, reader: _Expressions) -> Any:
    """Return *value*, which must not contain a module.

    Raises:
        JavaScriptError: it does.
    """
    match value:
        case Module():
            raise reader.error(f"{value.name} is {_NOT_PLAIN}")
        case dict():
            return {key: _plain(each, reader) for key, each in value.items()}
        case list():
            return [_plain(each, reader) for each in value]
    return value
