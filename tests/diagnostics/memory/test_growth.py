"""Which containers and buffers have grown, by their sizes then and now."""

from __future__ import annotations

import io
from array import array
from collections import OrderedDict, deque
from typing import Any, NoReturn

import pytest

from trio_supervisor.diagnostics.memory.growth import SMALL, LargeSizes, sizes_in


class Boastful(list[int]):
    """Has an idea of its own of how large it is, and fails to tell."""

    def __len__(self) -> NoReturn:
        raise AssertionError("the application's code was run")

    __sizeof__ = __len__


def sizes_of(*objects: object) -> LargeSizes:
    sizes = LargeSizes()
    sizes.add(objects)
    return sizes


@pytest.mark.parametrize(
    ("one", "size"),
    [
        pytest.param([None] * 1000, 8000, id="list"),
        pytest.param(Boastful(range(1000)), 8000, id="list of a class of its own"),
        pytest.param(deque(range(1000)), 8000, id="deque"),
        pytest.param(bytearray(5000), 5000, id="bytearray"),
        pytest.param(io.BytesIO(b"." * 5000), 5000, id="file in memory"),
        pytest.param(array("d", [0.0]) * 1000, 8000, id="array"),
    ],
)
def test_size_is_that_of_contents(one: object, size: int) -> None:
    assert sizes_of(one).found == {id(one): size}


def test_tables_count_with_their_own_size() -> None:
    for one in (
        dict.fromkeys(range(1000)),
        set(range(1000)),
        OrderedDict.fromkeys("x"),
    ):
        found = sizes_of(one).found
        assert found.keys() <= {id(one)}
        assert all(size >= 8 * len(one) for size in found.values())


def test_small_or_fixed_objects_are_not_recorded() -> None:
    closed = io.BytesIO(bytes(5000))
    closed.close()
    others = (b"." * 9000, "." * 9000, tuple(range(9000)), 3, int, closed)
    assert sizes_of([None], bytearray(SMALL - 1), *others).found == {}


def test_recorded_sizes_round_trip() -> None:
    one, other = bytearray(5000), [None] * 1000
    sizes = sizes_of(one, other)
    assert sizes_in(sizes.as_bytes()) == sizes.found
    assert sizes_in(LargeSizes().as_bytes()) == {}


def test_grown_objects_are_sorted_by_growth() -> None:
    grown, more, same, was_small = [bytearray(5000) for _ in range(4)]
    before = sizes_of(grown, more, same).found
    grown.extend(bytes(SMALL + 1))
    more.extend(bytes(SMALL + 2))
    same.extend(bytes(SMALL))
    found = sizes_of(grown, more, same, was_small).grown_since(before)
    names: dict[int, Any] = {id(grown): "grown", id(more): "more", id(was_small): "new"}
    assert [(names[id(one.one)], one.growth) for one in found] == [
        ("new", 5000),
        ("more", SMALL + 2),
        ("grown", SMALL + 1),
    ]
