"""What objects refer to, as far as they tell."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from itertools import chain
from typing import Any


def references(objects: Sequence[Any]) -> list[Any]:
    """Return what *objects* refer to.

    The collector is told of all but the keys of a dictionary where those are strings:
    they cannot be part of a cycle. Here they are there as well.
    """
    found = gc.get_referents(*objects)
    dicts = [one for one in objects if issubclass(type(one), dict)]
    if dicts:
        found += chain.from_iterable(map(dict.__iter__, dicts))
    return found
