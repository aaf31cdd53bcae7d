"""Descriptors that an import cannot close or replace."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from trio_supervisor.process.imports.protected_descriptors import keep_open


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    """Two open descriptors: the first is to be protected, the second is not."""
    ends = os.pipe()
    yield ends
    for end in ends:
        if is_open(end):
            os.close(end)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "close",
    [
        pytest.param(lambda kept, other: os.closerange(kept, kept + 1), id="range"),
        pytest.param(lambda kept, other: os.dup2(other, kept), id="dup2"),
    ],
)
def test_protected_descriptor_stays_open(
    pair: tuple[int, int], close: Callable[[int, int], object]
) -> None:
    kept, other = pair
    os.set_blocking(kept, False)
    with keep_open(kept):
        close(kept, other)
    with pytest.raises(BlockingIOError):  # still the reading end
        os.read(kept, 1)


def test_close_of_protected_descriptor_raises_ebadf(pair: tuple[int, int]) -> None:
    with keep_open(pair[0]), pytest.raises(OSError, match="Bad file descriptor"):
        os.close(pair[0])
    assert is_open(pair[0])


def test_closerange_skips_protected_descriptors(pair: tuple[int, int]) -> None:
    """The numbers are far beyond those that a test process has open."""
    numbers = range(900, 905)
    for number in numbers:
        os.dup2(pair[0], number)
    with keep_open(901, 903):
        os.closerange(900, 905)
    assert [number for number in numbers if is_open(number)] == [901, 903]
    os.closerange(900, 905)
    assert not any(is_open(number) for number in numbers)


def test_others_are_closed_and_functions_are_restored(pair: tuple[int, int]) -> None:
    functions = [os.close, os.closerange, os.dup2]
    kept, other = pair
    with keep_open(kept):
        os.close(other)
    assert not is_open(other)
    assert [os.close, os.closerange, os.dup2] == functions


def test_patch_made_in_the_block_stays(pair: tuple[int, int]) -> None:
    def patch(fd: int) -> None:
        raise AssertionError(fd)

    original = os.close
    try:
        with keep_open(pair[0]):
            os.close = patch
        assert os.close is patch
    finally:
        os.close = original
