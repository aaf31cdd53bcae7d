"""Split a byte stream into lines, for any split of the bytes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.kits.wire_strategies import chopped
from trio_supervisor.errors import LimitExceededError, RemoteProtocolError
from trio_supervisor.wire.framing import LineBuffer
from trio_supervisor.wire.limits import DEFAULT_LIMITS

# Newlines must be likely for a stream to have lines.
streams = st.lists(st.binary(max_size=5) | st.just(b"\n")).map(b"".join)


def _without_newlines(line: bytes) -> bytes:
    return line.replace(b"\n", b"")


def _feed(buffer: LineBuffer, pieces: list[bytes], lines: list[bytes]) -> None:
    for piece in pieces:
        for line in buffer.receive_data(piece):
            lines.append(line)  # noqa: PERF402 (what came before an error is kept)


@given(streams, st.data())
def test_lines_any_split_of_stream(stream: bytes, data: st.DataObject) -> None:
    """Oracle: join all bytes, then split at newlines."""
    lines: list[bytes] = []
    _feed(LineBuffer(), data.draw(chopped(stream)), lines)
    assert b"\n".join([*lines, b""]) == stream[: stream.rfind(b"\n") + 1]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_line_arrives_with_its_newline(size: int) -> None:
    """No line waits for the bytes after it."""
    stream, buffer, seen = b"one\ntwo\n\nthr", LineBuffer(), b""
    for start in range(0, len(stream), size):
        piece = stream[start : start + size]
        lines = list(buffer.receive_data(piece))
        assert len(lines) == piece.count(b"\n")
        seen += b"".join(line + b"\n" for line in lines)
    assert seen == b"one\ntwo\n\n"


def test_bytearray_reused_is_safe() -> None:
    """Buffered bytes are copied: a reader may reuse one buffer."""
    buffer, data = LineBuffer(), bytearray(b"half")
    assert list(buffer.receive_data(data)) == []
    data[:] = b"XXXX"
    assert list(buffer.receive_data(b" a line\n")) == [b"half a line"]
    (line,) = buffer.receive_data(bytearray(b"whole\n"))
    assert type(line) is bytes


def test_only_newline_ends_line() -> None:
    """Other separators of str.splitlines() do not."""
    line = b"a\rb\x0bc\x0cd\x1ce\xc2\x85f\xe2\x80\xa8g\r"
    assert list(LineBuffer().receive_data(line + b"\n")) == [line]


@given(st.data(), st.integers(0, 20))
def test_line_limit_is_exact(data: st.DataObject, limit: int) -> None:
    """For any split; lines before the overlong one arrive."""
    lines: list[bytes] = []
    good = [b"", b"x" * limit]
    stream = b"\n".join([*good, b"y" * (limit + 1), b""])
    with pytest.raises(LimitExceededError, match=f"longer than {limit} bytes"):
        _feed(LineBuffer(limit), data.draw(chopped(stream)), lines)
    assert lines == good


@given(st.lists(st.binary(max_size=8).map(_without_newlines)), st.data())
def test_overlong_lines_are_skipped(sent: list[bytes], data: st.DataObject) -> None:
    """Each is reported once, by its beginning; all others arrive intact."""
    told: list[bytes] = []
    lines: list[bytes] = []
    buffer = LineBuffer(4, 100, told.append)
    stream = b"".join(line + b"\n" for line in sent)

    _feed(buffer, data.draw(chopped(stream)), lines)

    assert lines == [line for line in sent if len(line) <= 4]
    overlong = [line for line in sent if len(line) > 4]
    assert len(told) == len(overlong)
    for head, line in zip(told, overlong, strict=True):
        assert line.startswith(head)
        assert len(head) > 4
    buffer.receive_eof()


def test_overlong_line_is_not_buffered() -> None:
    """Only its beginning is kept, which holds the id."""
    told: list[bytes] = []
    buffer = LineBuffer(1000, 10_000, told.append)
    for _ in range(10):
        assert list(buffer.receive_data(b"x" * 1000)) == []
    assert told == [b"x" * 512]
    assert buffer._tail == b""
    with pytest.raises(RemoteProtocolError, match="inside a line"):
        buffer.receive_eof()
    with pytest.raises(LimitExceededError, match="longer than 10000 bytes"):
        list(buffer.receive_data(b"x"))


@given(streams, st.integers(0, 4), st.data())
@example(b"12345", 4, None)
def test_overlong_line_is_reported_before_newline(
    stream: bytes, limit: int, data: st.DataObject | None
) -> None:
    """A line without an end does not stay in memory."""
    buffer, start = LineBuffer(limit), 0
    for piece in data.draw(chopped(stream)) if data else [stream]:
        start += len(piece)
        is_too_long = any(len(s) > limit for s in stream[:start].split(b"\n"))
        try:
            list(buffer.receive_data(piece))
        except LimitExceededError:
            assert is_too_long
            return
        assert not is_too_long


def test_line_limit_applies_per_line() -> None:
    """For any split of the lines before it."""
    buffer = LineBuffer(3)
    stream = b"abc\n" * 100
    lines = [line for n in stream for line in buffer.receive_data(bytes([n]))]
    assert lines == [b"abc"] * 100


def test_line_limit_default_is_protocol_limit() -> None:
    """8 MiB, in one piece or two."""
    line = b"x" * DEFAULT_LIMITS.line
    assert list(LineBuffer().receive_data(line + b"\n")) == [line]
    buffer = LineBuffer()
    assert list(buffer.receive_data(line)) == []
    with pytest.raises(LimitExceededError):
        list(buffer.receive_data(b"x"))


@pytest.mark.parametrize("stream", [b"", b"\n", b"a line\n", b"two\nlines\n"])
def test_end_of_stream_between_lines(stream: bytes) -> None:
    """This is how a peer disconnects."""
    buffer = LineBuffer()
    list(buffer.receive_data(stream))
    buffer.receive_eof()


@pytest.mark.parametrize("stream", [b" ", b"a line\nhalf", b"half a line"])
def test_end_of_stream_inside_line_is_refused(stream: bytes) -> None:
    """The peer died while writing."""
    buffer = LineBuffer()
    list(buffer.receive_data(stream))
    with pytest.raises(RemoteProtocolError, match="inside a line"):
        buffer.receive_eof()
