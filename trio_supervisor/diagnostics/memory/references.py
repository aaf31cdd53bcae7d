"""List the references of objects, including string keys of dictionaries."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from itertools import chain
from typing import Any


def references(objects: Sequence[Any]) -> list[Any]:
    """Return the objects that *objects* refer to.

    gc.get_referents() omits the keys of a dictionary if all are strings, since those
    cannot be part of a cycle. They are included here.
    """
    found = gc.get_referents(*objects)
    dicts = [one for one in objects if issubclass(type(one), dict)]
    if dicts:
        found += chain.from_iterable(map(dict.__iter__, dicts))
    return found
