"""Suggest the known name that is nearest to a mistyped one. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Return a question about the nearest of *known*; empty: none is near."""
    near = difflib.get_close_matches(str(name), [str(each) for each in known], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
