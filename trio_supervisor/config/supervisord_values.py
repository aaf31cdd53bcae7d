"""Read values of a supervisord configuration: expansions, pairs, sizes. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Final

from attrs import define, field

from trio_supervisor.config.toml_writer import literal

_EXPANSION: Final = re.compile(r"%%|%\((\w+)\)([0-9.-]*[a-z])|%")
_PADDED: Final = re.compile(r"([1-9][0-9]*)%\(process_num\)0?([1-9])[di]$")
_TRUE: Final = ("yes", "true", "on", "1")
_FALSE: Final = ("no", "false", "off", "0")


@define
class Expander:
    """Replaces ``%(name)s`` of one section."""

    _names: Mapping[str, str]
    """Such as ``program_name`` and ``here``."""
    _first: int = 0
    """Number of the first process (``numprocs_start``)."""
    notes: list[str] = field(factory=list)
    """What has no equivalent."""

    def text(self, value: str) -> str:
        """Return *value* for TOML, with expansions as ``${VAR}`` and ``{index}``."""
        parts: list[str] = []
        end = 0
        for match in _EXPANSION.finditer(value):
            before = value[end : match.start()]
            if (port := _PADDED.search(before + match[0])) is not None:
                # 80%(process_num)02d is 8000 and the number.
                first = int(port[1]) * 10 ** int(port[2]) + self._first
                before = before[: len(before) - len(port[1])]
                parts += [literal(before), f"{{{first}+index}}"]
            else:
                parts += [literal(before), self._expansion(match)]
            end = match.end()
        return "".join([*parts, literal(value[end:])])

    def words(self, value: str) -> list[str]:
        """Return the command line *value* as words.

        Raises:
            ValueError: a quotation is not closed.
        """
        return [self.text(word) for word in shlex.split(value)]

    def _expansion(self, match: re.Match[str]) -> str:
        name, form = match[1], match[2]
        if name is None:
            return "%"
        if name.startswith("ENV_"):
            return f"${{{name.removeprefix('ENV_')}}}"
        if name == "process_num":
            if form not in ("d", "s", "i"):
                self.notes.append(f"{match[0]}: the number is not padded")
            return f"{{{self._first}+index}}" if self._first else "{index}"
        if name == "host_node_name":
            return "${HOSTNAME}"
        if name in self._names:
            return literal(self._names[name])
        self.notes.append(f"{match[0]}: unknown expansion")
        return literal(match[0])


def pairs_of(value: str) -> dict[str, str]:
    """Return the variables in ``KEY="value",OTHER=value``.

    Raises:
        ValueError: it has another form.
    """
    lexer = shlex.shlex(value, posix=False)
    lexer.wordchars += "/.+-():@?&%#~*!;^|<>{}[]$\\"
    lexer.commenters = ""
    tokens = list(lexer)
    found: dict[str, str] = {}
    at = 0
    while at < len(tokens):
        if tokens[at] in (",", "\n"):
            at += 1
            continue
        if at + 1 >= len(tokens) or tokens[at + 1] != "=":
            raise ValueError(f"expected KEY=value, got {tokens[at]}")
        name, at = tokens[at], at + 2
        text = ""
        while at < len(tokens) and tokens[at] != ",":
            text += tokens[at].strip("'\"") if tokens[at][:1] in "'\"" else tokens[at]
            at += 1
        found[name] = text
    return found


def boolean(value: str) -> bool:
    """Return a truth value.

    Raises:
        ValueError: it is none.
    """
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise ValueError(f"expected true or false, got {value}")
