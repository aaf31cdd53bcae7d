"""Replace ``${VAR}`` and ``${VAR:-default}`` by values of variables. Pure.

A variable may be defined by several layers, the later ones first: the environment of
this process, ``env_file``, ``[env]``, and the service's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from attrs import define, field, frozen

from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.application.templates import escaped

_REFERENCE: Final = re.compile(
    r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(:?-((?:[^{}]|\{[^{}]*\})*))?\}|\$\{"
)


class InterpolationError(Exception):
    """A reference cannot be replaced; the text says why."""


class Text(NamedTuple):
    """A value, and whether it contains a secret."""

    text: str
    is_secret: bool = False


@frozen
class Variable:
    """A definition of a variable."""

    text: str
    is_literal: bool = True
    """Whether ``${…}`` and ``{…}`` have no meaning in it."""
    is_secret: bool = False


Layer = Mapping[str, Variable]


@define
class Variables:
    """Variables by name, from several layers."""

    _layers: Sequence[Layer]
    """The first one has the lowest priority."""
    _in_progress: list[tuple[str, int]] = field(factory=list)

    def environment(self, first: int = 1) -> dict[str, Text | InterpolationError]:
        """Return the variables of all layers from number *first* on."""
        names = dict.fromkeys(name for layer in self._layers[first:] for name in layer)
        found: dict[str, Text | InterpolationError] = {}
        for name in names:
            try:
                found[name] = self._value(name, len(self._layers))
            except InterpolationError as exc:
                self._in_progress.clear()
                found[name] = exc
        return found

    def replace(self, text: str) -> Text:
        """Return *text* with its references replaced.

        Raises:
            InterpolationError: a variable is not set, or a reference is malformed.
        """
        try:
            return self._replaced(text, "", 0)
        finally:
            self._in_progress.clear()

    def _value(self, name: str, below: int) -> Text:
        """Return the value of *name* in the highest layer under number *below*."""
        for number in reversed(range(below)):
            if (variable := self._layers[number].get(name)) is not None:
                break
        else:
            raise KeyError(name)
        if variable.is_literal:
            return Text(escaped(variable.text), variable.is_secret)
        step = (name, number)
        if step in self._in_progress:
            names = " -> ".join([each for each, _ in self._in_progress] + [name])
            raise InterpolationError(f"refers to itself: {names}")
        self._in_progress.append(step)
        found = self._replaced(variable.text, name, number)
        self._in_progress.pop()
        return found

    def _replaced(self, text: str, owner: str, layer: int) -> Text:
        is_secret = False

        def value(match: re.Match[str]) -> str:
            nonlocal is_secret
            found = self._reference(match, owner, layer)
            is_secret |= found.is_secret
            return found.text

        return Text(_REFERENCE.sub(value, text), is_secret)

    def _reference(self, match: re.Match[str], owner: str, layer: int) -> Text:
        if match[0] == "$${":
            return Text("${")
        if not match[1]:
            around = match.string[match.start() : match.start() + 20]
            raise InterpolationError(
                f"expected ${{NAME}} or ${{NAME:-default}}, got {around!r}; for a "
                f"literal ${{, write $${{"
            )
        name, default = match[1], match[3]
        try:
            # A definition may extend the one below it: PATH = "bin:${PATH}".
            found = self._value(name, layer if name == owner else len(self._layers))
        except KeyError:
            found = None
        is_empty = match[2] is not None and match[2].startswith(":")
        if found is not None and not (is_empty and not found.text):
            return found
        if default is not None:
            return self._replaced(default, owner, layer)
        known = {name for layer in self._layers for name in layer}
        raise InterpolationError(
            f"the variable {name} is not set{did_you_mean(name, known)}; give it a "
            f"value in [env], or a default: ${{{name}:-default}}"
        )
