"""Turn the paths of options in a declaration into keys of its file. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

from attrs import define

from trio_supervisor.application import Command, Group, Service
from trio_supervisor.config.positions import KeyPath
from trio_supervisor.config.problems import parts_of

_PLACE: Final = re.compile(r"services(?:\[\d+\](?:\.children(?=\[))?)+")


@define
class FieldPaths:
    """Turns paths such as ``services[0].children[1]`` into keys of the file."""

    _children: list[Service | Command | Group]

    def key_of(self, field: str) -> KeyPath:
        """Return the key that the path *field* of a `SpecError` means."""
        match = _PLACE.match(field)
        if match is None:
            return parts_of(field)
        owner = self._owner_of(match[0])
        rest = parts_of(field[match.end() :])
        if isinstance(owner, Command) and rest[:1] == ("arguments",):
            rest = ("command", *rest[1:])
        kind = "groups" if isinstance(owner, Group) else "services"
        return (kind, str(owner.name), *rest)

    def in_text(self, text: str) -> str:
        """Return *text* with each such path replaced."""

        def name(match: re.Match[str]) -> str:
            kind, owner = self.key_of(match[0])[:2]
            return f"{kind}.{owner}"

        return _PLACE.sub(name, text)

    def _owner_of(self, place: str) -> Service | Command | Group:
        children: Any = self._children
        owner: Any = None
        for number in re.findall(r"\[(\d+)\]", place):
            owner = children[int(number)]
            children = getattr(owner, "children", ())
        found: Service | Command | Group = owner
        return found
