"""Test levels of lines."""

from __future__ import annotations

import logging

import pytest

from tests.kits.output import block
from trio_supervisor.process.output.blocks import MAX_LINE
from trio_supervisor.process.output.levels import level_of, levelled, split_level


@pytest.mark.parametrize(
    ("line", "level", "text"),
    [
        (b"<3>oops", 3, b"oops"),
        (b"<0>", 0, b""),
        (b"<007>x", 7, b"x"),
        (b"plain", 6, b"plain"),
        (b"<8>x", 6, b"<8>x"),
        (b"<30>x", 6, b"<30>x"),
        (b"<>x", 6, b"<>x"),
        (b"<3", 6, b"<3"),
        (b" <3>x", 6, b" <3>x"),
        (b"<3><4>x", 3, b"<4>x"),
    ],
)
def test_split_level(line: bytes, level: int, text: bytes) -> None:
    """As systemd reads it."""
    assert split_level(line) == (level, text)


def test_levelled_ignores_prefix_in_rest_of_a_line() -> None:
    found = [(n, line) for n, _, line in levelled(block(b"<3>a\r\n\n<4>b\n"))]
    assert found == [(3, b"a"), (6, b""), (4, b"b")]
    rest = block(b"<3>a\n<3>b\n", is_continued=True)
    assert [(n, line) for n, _, line in levelled(rest)] == [(6, b"<3>a"), (3, b"b")]
    long = list(levelled(block(MAX_LINE * b"x" + b"<3>y\n")))
    assert [(n, piece.is_cut) for n, piece, _ in long] == [(6, True), (6, False)]


@pytest.mark.parametrize(
    ("number", "level"),
    [
        (logging.CRITICAL + 1, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (logging.INFO, 6),
        (logging.DEBUG, 7),
    ],
)
def test_level_of(number: int, level: int) -> None:
    assert level_of(number) == level
