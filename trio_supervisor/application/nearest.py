"""Suggest the known name that is nearest to a mistyped one. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Return a question about the nearest of *known*; empty: none is near."""
    if not isinstance(name, str):  # any value of a service file, whose str() may fail
        return ""
    near = difflib.get_close_matches(name, [str(each) for each in known], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
