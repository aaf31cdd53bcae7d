"""What travels: values of JSON, the fields of messages, streams cut anywhere."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

ENVELOPE = frozenset({"id", "do", "finished", "failed", "error"})

# Without lone surrogates, which encoding replaces: they do not come back the same.
texts = st.text(st.characters(codec="utf-8"))
ints = st.integers(-(2**63), 2**64 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | ints | finite | texts,
    lambda values: (
        st.lists(values, max_size=4) | st.dictionaries(texts, values, max_size=4)
    ),
    max_leaves=8,
)
objects: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    texts, json_values, max_size=4
)
fields: st.SearchStrategy[Mapping[str, Any]] = st.dictionaries(
    texts.filter(lambda name: name not in ENVELOPE), json_values, max_size=4
)


@st.composite
def chopped(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """*data*, cut into nonempty pieces at drawn places."""
    cuts = draw(st.sets(st.integers(1, max(1, len(data) - 1))))
    bounds = [0, *sorted(cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds) if a < b]


def nested(depth: int) -> list[Any]:
    """Arrays in arrays, *depth* of them."""
    tree: list[Any] = []
    for _ in range(depth - 1):
        tree = [tree]
    return tree
