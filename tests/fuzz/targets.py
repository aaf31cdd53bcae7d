"""What is fuzzed: functions of bytes that raise if something is wrong."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, TypeAlias

from tests.kits.wire_examples import RESULTS
from trio_supervisor.errors import (
    BadRequestError,
    LocalProtocolError,
    NoSuchWorkerError,
    RemoteProtocolError,
    SupervisorError,
    UnavailableError,
    UnknownOperationError,
)
from trio_supervisor.wire import json_line, json_plain
from trio_supervisor.wire.codec import (
    parse_operation,
    parse_result,
    to_fields,
    unparse_operation,
)
from trio_supervisor.wire.limits import Limits
from trio_supervisor.wire.session import (
    AnswerReceived,
    CallReceived,
    CallRefused,
    Event,
    Session,
    Unparsed,
)

Target: TypeAlias = Callable[[bytes], None]

_SMALL: Final = Limits(line=900, call=600, containers=8, skipped=1500, depth=6, calls=4)
"""Limits that a short input can exceed; a call is longer than its head, as always."""
_RESULT_TYPES: Final = tuple(dict.fromkeys(type(example) for example in RESULTS))


def stream(data: bytes) -> None:
    """Any bytes are events, then perhaps an error of the peer; however they are cut.

    The first byte chooses the session, the second one where the rest is cut.
    """
    how, cut, rest = data[:1] or b"\0", data[1:2] or b"\0", data[2:]
    whole = _outcome(_session(how[0]), [rest])
    size = cut[0] % 16 + 1
    pieces = [rest[at : at + size] for at in range(0, len(rest), size)]
    assert _outcome(_session(how[0]), pieces) == whole


def _session(how: int) -> Session:
    """Return one of several sessions, which waits for answers to two calls."""
    session = Session(
        is_connecting=bool(how & 1),
        limits=_SMALL if how & 2 else Limits(),
        json=json_plain if how & 4 else None,
        parses_large=bool(how & 8),
    )
    session.call("status", {})
    forgotten, _ = session.call("ping", {})
    session.forget(forgotten)
    return session


def _outcome(session: Session, pieces: list[bytes]) -> list[object]:
    """Return what a session makes of *pieces*; answer the calls in them."""
    seen: list[object] = []
    ends = Counter[int]()
    try:
        for piece in pieces:
            for event in session.receive_data(piece):
                seen.append(_comparable(event))
                if isinstance(event, AnswerReceived):
                    assert not ends[event.id], "an answer after the last one"
                    ends[event.id] += event.is_last
                # At the end, or whether an id is in flight would depend on the cuts.
        for each in seen:
            if isinstance(each, CallReceived):
                _check_line(session.fail(each.id, NoSuchWorkerError("none")), each.id)
        session.receive_eof()
    except RemoteProtocolError as exc:
        seen.append(str(exc))
    assert session.calls_in_flight == 1 - sum(ends.values())
    return seen


def _comparable(event: Event) -> object:
    match event:
        case AnswerReceived(error=error) if error is not None:
            return event._replace(error=None), error.error_class, error.message
        case AnswerReceived(fields=Unparsed() as fields):
            return event, fields.body
        case CallRefused(reply):
            _check_line(reply, None)
    return event


def _check_line(line: bytes, id_: int | None) -> None:
    """Check that *line* is one that a peer can read."""
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    tree = json.loads(line)
    assert id_ is None or tree["id"] == id_
    assert tree["finished"] is True


def operation(data: bytes) -> None:
    """A call is parsed, or its caller told what is wrong; what is parsed is sent."""
    try:
        tree = json_line.decode_object(data, Limits().depth)
    except RemoteProtocolError:
        return
    do = tree.pop("do", None)
    if not isinstance(do, str):
        return
    try:
        parsed = parse_operation(do, tree)
    except (BadRequestError, UnknownOperationError) as exc:
        _check_text(exc)
        return
    again = unparse_operation(parsed)
    assert parse_operation(*again) == parsed
    _check_sendable(again[1])


def result(data: bytes) -> None:
    """The answer to each call is parsed, or the peer's error told.

    The first byte chooses the call.
    """
    type_ = _RESULT_TYPES[(data[:1] or b"\0")[0] % len(_RESULT_TYPES)]
    try:
        tree = json_line.decode_object(data[1:], Limits().depth)
        parsed = parse_result(tree, type_)
    except RemoteProtocolError as exc:
        _check_text(exc)
        return
    again = to_fields(parsed)
    assert parse_result(again, type_) == parsed
    _check_sendable(again)


def _check_text(exc: SupervisorError) -> None:
    assert str(exc)
    assert len(str(exc)) < 5000, "a message as long as the input"


def _check_sendable(fields: Mapping[str, object]) -> None:
    line = json_line.encode_object(fields)
    assert json_line.decode_object(line[:-1], 10**6) is not None


def libraries(data: bytes) -> None:
    """What orjson accepts, the other JSON library accepts, and reads the same from it.

    That one reads answers, which a supervisor has written with orjson.
    """
    quick, plain = (_decoded(each, data) for each in (json_line, json_plain))
    assert quick in (None, plain)


def _decoded(library: Any, line: bytes) -> str | None:
    try:
        # As text, in which 1 and 1.0 and True differ.
        return repr(_with_short_numbers(library.decode_object(line, 16)))
    except RemoteProtocolError:
        return None


def _with_short_numbers(value: Any) -> Any:
    """Replace integers of more than 64 bits, which are floats to orjson."""
    match value:
        case dict():
            return {key: _with_short_numbers(item) for key, item in value.items()}
        case list():
            return [_with_short_numbers(item) for item in value]
        case int() if not -(2**63) <= value < 2**64:
            return float(value)
    return value


def passed_on(data: bytes) -> None:
    """A supervisor passes a worker's answer on, which is that of this one call.

    Whatever the worker sends, the client gets answers to its own call, at most one of
    them the last, and its connection does not end.
    """
    worker = Session(is_connecting=False, limits=_SMALL, parses_large=False)
    client = Session(is_connecting=True, limits=_SMALL)
    server = Session(is_connecting=False, limits=_SMALL)
    mine, call = client.call("forward", {})
    other, second = client.call("forward", {})
    assert len([*server.receive_data(call + second)]) == 2
    asked, _ = worker.call("dump", {})
    ends = Counter[int]()
    with suppress(RemoteProtocolError):  # it ends the worker's connection
        for event in worker.receive_data(data):
            if ends[mine]:
                break  # the call is given up
            for line in _passed(server, event, asked, mine):
                for got in _received(client, line):
                    assert isinstance(got, AnswerReceived)
                    assert got.id == mine != other
                    ends[got.id] += got.is_last
    assert ends[mine] <= 1


def _received(client: Session, line: bytes) -> list[Event]:
    try:
        return [*client.receive_data(line)]
    except RemoteProtocolError as exc:
        raise AssertionError(f"the client hangs up: {exc}") from exc


def _passed(server: Session, event: Event, asked: int, mine: int) -> Iterator[bytes]:
    """Yield what the supervisor sends for an answer of the worker."""
    if not isinstance(event, AnswerReceived) or event.id != asked:
        return
    try:
        if event.error is not None:
            yield server.fail(mine, event.error)
        elif event.is_last:
            yield server.answer(mine, event.fields)
        else:
            yield server.progress(mine, event.fields)
    except LocalProtocolError:  # too long for a line, or malformed
        yield server.fail(mine, NoSuchWorkerError("x"))


def conversation(data: bytes) -> None:
    """Two sessions that do any of what they may, in any order, never disagree.

    Each byte is one step of one of them: to call, answer, give up or deliver.
    """
    sides = [_Side(Session(is_connecting=c, limits=_SMALL)) for c in (True, False)]
    for byte in data:
        me, peer = sides[byte & 1], sides[1 - (byte & 1)]
        me.step(byte >> 1 & 7, byte >> 4, peer)
    for _ in range(3):
        for me, peer in (sides, sides[::-1]):
            me.deliver(len(me.sent), peer)
            while peer.to_answer:
                peer.answer(0, is_last=True)
    for side in sides:
        assert side.session.calls_in_flight == 0
        assert not side.waiting, "a call without an end"


class _Side:
    """One side of a `conversation`, and what it knows by itself."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sent = bytearray()
        self.waiting: set[int] = set()
        self.to_answer: list[int] = []

    def step(self, what: int, which: int, peer: _Side) -> None:
        """Make one step."""
        match what:
            case 0 | 1:
                self.call("cancel" if what else "echo", which)
            case 2 | 3 | 4:
                self.answer(which, is_last=what > 2, fails=what > 3)
            case 5:
                self.give_up(which)
            case _:
                self.deliver(1 + which * (1 if what == 6 else 30), peer)

    def call(self, do: str, which: int) -> None:
        try:
            id_, line = self.session.call(do, {"text": "é" * (which % 4)})
        except UnavailableError:
            assert self.session.calls_in_flight <= _SMALL.calls * 2
            return
        self.waiting.add(id_)
        self.sent += line

    def answer(self, which: int, *, is_last: bool, fails: bool = False) -> None:
        if not self.to_answer:
            return
        id_ = self.to_answer[which % len(self.to_answer)]
        if not is_last:
            self.sent += self.session.progress(id_, {"part": which})
            return
        self.to_answer.remove(id_)
        error = NoSuchWorkerError("none")
        fields = {"data": ["x"] * (which % 6)}
        self.sent += (
            self.session.fail(id_, error) if fails else self.session.answer(id_, fields)
        )

    def give_up(self, which: int) -> None:
        if self.waiting:
            id_ = sorted(self.waiting)[which % len(self.waiting)]
            self.session.forget(id_)
            self.waiting.discard(id_)

    def deliver(self, size: int, peer: _Side) -> None:
        piece = bytes(self.sent[:size])
        del self.sent[:size]
        for event in peer.session.receive_data(piece):
            match event:
                case CallReceived(id_):
                    assert id_ not in peer.to_answer
                    peer.to_answer.append(id_)
                case AnswerReceived(id_, _, is_last, _):
                    assert id_ in peer.waiting, (
                        "an answer to nothing that is waited for"
                    )
                    if is_last:
                        peer.waiting.discard(id_)
                case CallRefused():
                    raise AssertionError("refused")


TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for target in (stream, operation, result, libraries, passed_on, conversation)
}
