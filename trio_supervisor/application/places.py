"""Name options by the place in a file where they were declared. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from trio_supervisor.errors import SpecError

_PATH: Final = re.compile(r"(services(?:\[\d+\](?:\.children(?=\[))?)+)(\.\w+)?")


def located(error: SpecError, places: Mapping[str, str]) -> SpecError:
    """Return *error* with file and line instead of the path of its field.

    Args:
        places: File, line and key of services and their options by path, such as
            ``services[1].count``; empty: they were declared in Python.
    """
    if not places:
        return error
    field = _PATH.sub(lambda match: _place(match, places), error.field)
    if field == error.field:
        first = re.split(r"[.\[]", field, maxsplit=1)[0]
        field = places.get(first, first) + field[len(first) :]
    return SpecError(field, error.problem)


def _place(match: re.Match[str], places: Mapping[str, str]) -> str:
    if (place := places.get(match[0])) is not None:
        return place
    return places.get(match[1], match[1]) + (match[2] or "")
