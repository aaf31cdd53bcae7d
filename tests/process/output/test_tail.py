"""The last lines of a child."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tests.kits.output import WORKER, block
from trio_supervisor.process.output.blocks import MAX_LINE
from trio_supervisor.process.output.tail import OutputLine, Tail


def texts(lines: list[OutputLine]) -> list[str]:
    return [line.text for line in lines]


def test_tail_last_lines_are_in_order() -> None:
    """With time and stream."""
    tail = Tail()
    tail.add(block(b"one\ntwo\n", time=1.0))
    tail.add(block(b"three\n", time=2.0, stream="stderr"))
    assert tail.last(2) == [
        OutputLine(time=1.0, stream="stdout", text="two"),
        OutputLine(time=2.0, stream="stderr", text="three"),
    ]
    assert texts(tail.last(99)) == ["one", "two", "three"]
    assert tail.last(0) == tail.last(-1) == []


@given(
    st.lists(st.integers(1, 9), max_size=40), st.integers(0, 50), st.integers(1, 200)
)
def test_tail_is_the_end_of_everything_added(
    counts: list[int], wanted: int, limit: int
) -> None:
    """As many lines as requested, or as are kept."""
    tail = Tail(limit, 10)
    everything: list[str] = []
    for number, count in enumerate(counts):
        lines = [f"{number}-{index}" for index in range(count)]
        everything += lines
        tail.add(block("".join(line + "\n" for line in lines).encode()))
    found = texts(tail.last(wanted))
    assert found == everything[len(everything) - len(found) :]
    kept = sum(len(line) + 1 for line in found)
    assert len(found) == min(wanted, len(everything)) or kept >= limit or len(found) > 9


def test_tail_size_is_bounded() -> None:
    """A large block is kept, also after a small one was added."""
    tail = Tail(1000, 1000)
    for number in range(50):
        tail.add(block(b"%d\n" % number * 300))
        tail.add(block(b"small\n"))
        kept = tail.last(10**6)
        size = sum(len(line.text) + 1 for line in kept)
        assert kept[-1].text == "small"
        assert number < 3 or 1000 <= size < 2000


def test_tail_number_of_blocks_is_bounded() -> None:
    """Each block needs more memory than its bytes."""
    tail = Tail()
    for number in range(5000):
        tail.add(block(b"%d\n" % number))
    assert texts(tail.last(10**6)) == [str(number) for number in range(4000, 5000)]


def test_tail_selects_lines_of_one_process() -> None:
    """Earlier processes have the same name, and perhaps the same pid."""
    tail = Tail()
    again = evolve(WORKER, incarnation=4)
    tail.add(block(b"first\n"))
    tail.add(block(b"second\n", origin=again))
    assert texts(tail.last(9, again)) == ["second"]
    assert texts(tail.last(9)) == ["first", "second"]


def test_tail_marks_cut_lines() -> None:
    """Each piece is a line; only the last one is not truncated."""
    tail = Tail()
    tail.add(block(MAX_LINE * b"x", is_cut=True))
    tail.add(block(b"x\n"))
    assert [line.is_truncated for line in tail.last(9)] == [True, False]
