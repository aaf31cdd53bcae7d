"""Assembling lines: nothing is lost or duplicated, wherever reads end."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kits.output import block
from trio_supervisor.process.output.blocks import (
    MAX_LINE,
    LineAssembler,
    Piece,
    count_lines,
    pieces_of,
    text_of,
)

# Short lines, long ones, and characters of several bytes where a line is cut.
_PARTS = st.sampled_from(
    [b"\n", b"a", b"\r\n", b"\x00\xff", "é€😀".encode(), b"x" * 5000, b"y" * MAX_LINE]
)
TEXTS = st.lists(_PARTS, max_size=20).map(b"".join)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


def aligned(chunks: list[bytes]) -> list[tuple[bytes, bool]]:
    assembler = LineAssembler()
    found = [part for chunk in chunks for part in assembler.add(chunk)]
    found.extend(assembler.end())
    return [(bytes(data), is_cut) for data, is_cut in found]


def pieces(parts: list[tuple[bytes, bool]]) -> list[Piece]:
    return [p for data, cut in parts for p in pieces_of(block(data, is_cut=cut))]


@given(TEXTS, st.lists(st.integers(min_value=0), max_size=12))
def test_assembler_yields_every_byte_once_in_order(
    data: bytes, places: list[int]
) -> None:
    """So output files are exact."""
    parts = aligned(cut(data, places))
    assert b"".join(part for part, _ in parts) == data
    assert all(part for part, _ in parts)


@given(TEXTS, st.lists(st.integers(min_value=0), max_size=12))
def test_assembler_yields_whole_lines_except_the_last(
    data: bytes, places: list[int]
) -> None:
    """Or they end where a line that is too long was cut."""
    parts = aligned(cut(data, places))
    for part, is_cut in parts[:-1]:
        assert is_cut or part.endswith(b"\n")


@given(TEXTS, st.lists(st.integers(min_value=0), max_size=12))
def test_assembler_lines_do_not_depend_on_reads(data: bytes, places: list[int]) -> None:
    """Lines that are too long are cut at the same places."""
    assert pieces(aligned(cut(data, places))) == pieces(aligned([data]))


@given(TEXTS)
def test_pieces_of_matches_split(data: bytes) -> None:
    """After cut lines are joined again."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    joined = [b""]
    for piece in pieces(aligned([data])):
        joined[-1] += piece.data
        if not piece.is_cut:
            joined.append(b"")
    assert joined.pop() == b""
    assert joined == lines


@given(TEXTS)
def test_count_lines(data: bytes) -> None:
    """The number of newlines, plus one if the last line has none."""
    expected = data.count(b"\n") + (not data.endswith(b"\n"))
    assert count_lines(memoryview(data)) == expected


@given(st.text("aé€😀", min_size=1, max_size=9))
def test_long_line_is_not_cut_within_a_character(part: str) -> None:
    """Valid UTF-8 stays valid."""
    text = part * (3 * MAX_LINE // len(part.encode()))
    found = pieces(aligned([text.encode()]))
    assert "".join(map(text_of, found)) == text
    assert all(len(piece.data) <= MAX_LINE for piece in found)


def test_line_of_maximum_length_is_not_cut() -> None:
    line = MAX_LINE * b"x"
    assert pieces(aligned([line, b"\n"])) == [Piece(line, False)]
    assert pieces(aligned([line, b"x\n"])) == [Piece(line, True), Piece(b"x", False)]


def test_assembler_endless_line_is_yielded_in_pieces() -> None:
    """The buffered rest is bounded."""
    assembler = LineAssembler()
    given_out = 0
    for _ in range(100):
        given_out += sum(len(part) for part, _ in assembler.add(10_000 * b"x"))
    assert 1_000_000 - MAX_LINE <= given_out < 1_000_000


@given(TEXTS, st.lists(st.integers(min_value=0), max_size=12), st.data())
def test_assembler_cut_loses_no_byte(
    data: bytes, places: list[int], draw: st.DataObject
) -> None:
    """The rest of an incomplete line follows, without duplicates."""
    assembler = LineAssembler()
    parts: list[tuple[bytes, bool]] = []
    for chunk in cut(data, places):
        parts += [(bytes(part), flag) for part, flag in assembler.add(chunk)]
        if draw.draw(st.booleans()):
            parts += [(bytes(part), flag) for part, flag in assembler.cut()]
    parts += [(bytes(part), flag) for part, flag in assembler.end()]
    assert b"".join(part for part, _ in parts) == data
    assert all(part for part, _ in parts)


def test_assembler_cut_keeps_incomplete_character() -> None:
    """The first bytes of a character are kept until the others arrive."""
    assembler = LineAssembler()
    euro = "€".encode()
    assert list(assembler.add(b"price: " + euro[:2])) == []
    assert list(assembler.cut()) == [(b"price: ", True)]
    assert list(assembler.cut()) == []
    assert list(assembler.add(euro[2:] + b"\n")) == [(euro + b"\n", False)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_pieces_of_newline_after_cut_is_not_a_line(end: bytes) -> None:
    found = block(end + b"next\n", is_continued=True)
    assert list(pieces_of(found)) == [Piece(b"next", False)]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param("é".encode(), "é", id="UTF-8"),
        pytest.param(b"caf\xe9", "caf\\xe9", id="not UTF-8"),
        pytest.param(b"\xed\xa0\x80", "\\xed\\xa0\\x80", id="a surrogate"),
        pytest.param(b"windows\r", "windows", id="a return before the newline"),
        pytest.param(b"\r50%", "50%", id="a return at the start"),
        pytest.param(b"a\rb", "a\rb", id="a return within"),
    ],
)
def test_text_of_decodes_bytes(data: bytes, text: str) -> None:
    """No byte is lost, and no error is raised."""
    assert text_of(Piece(data, False)) == text
