"""The wire, frozen: lines that other programs and older releases send and read.

A test here that fails means that the protocol changed. If that is what you want,
change the line in golden/ by hand, and say so in the changelog.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest

from tests.kits.wire_examples import CALLS, RESULTS, TYPES, default_of
from trio_supervisor import errors
from trio_supervisor.errors import CallFailedError, SupervisorError
from trio_supervisor.wire import codec, reports
from trio_supervisor.wire import controller_messages as c
from trio_supervisor.wire import messages as m
from trio_supervisor.wire.operation import Operation
from trio_supervisor.wire.session import (
    AnswerReceived,
    CallReceived,
    Event,
    Session,
)

T = TypeVar("T")
GOLDEN = Path(__file__).parent / "golden"


def _lines(name: str) -> list[bytes]:
    return (GOLDEN / f"{name}.jsonl").read_bytes().splitlines(keepends=True)


def _pairs(examples: Sequence[T], name: str) -> list[tuple[T, bytes]]:
    # One without the other is told by a test of its own.
    return list(zip(examples, _lines(name), strict=False))


def _name(example: object) -> str:
    return "" if isinstance(example, bytes) else type(example).__name__


def _called() -> Session:
    """An accepting session with a call of the number 2 to answer."""
    session = Session(is_connecting=False)
    assert list(session.receive_data(b'{"id":2,"do":"x"}\n'))
    return session


def _calling() -> Session:
    """A connecting session that waits for the answer to its call 2."""
    session = Session(is_connecting=True)
    assert session.call("x", {})[0] == 2
    return session


# Operations and results.


@pytest.mark.parametrize("type_", TYPES, ids=lambda type_: type_.__name__)
def test_message_types_have_golden_lines(type_: type[attrs.AttrsInstance]) -> None:
    """A new one needs an example in examples.py and its line in golden/."""
    examples = CALLS if issubclass(type_, Operation) else RESULTS
    assert any(type(example) is type_ for example in examples)


@pytest.mark.parametrize("type_", TYPES, ids=lambda type_: type_.__name__)
def test_fields_have_default_and_other_values(
    type_: type[attrs.AttrsInstance],
) -> None:
    """Otherwise a golden line would not show a changed default."""
    examples = [e for e in (*CALLS, *RESULTS) if type(e) is type_]
    for field in attrs.fields(type_):
        if (default := default_of(field)) is not attrs.NOTHING:
            seen = {getattr(e, field.name) == default for e in examples}
            assert seen == {True, False}, field.name


@pytest.mark.parametrize(("operation", "line"), _pairs(CALLS, "operations"), ids=_name)
def test_operation_matches_golden_line(operation: Operation, line: bytes) -> None:
    """Byte for byte; decoding the line returns the object."""
    _, sent = Session(is_connecting=True).call(*codec.unparse_operation(operation))
    assert sent == line
    (event,) = Session(is_connecting=False).receive_data(line)
    assert isinstance(event, CallReceived)
    assert codec.parse_operation(event.do, event.arguments) == operation


@pytest.mark.parametrize(("result", "line"), _pairs(RESULTS, "results"), ids=_name)
def test_result_matches_golden_line(result: attrs.AttrsInstance, line: bytes) -> None:
    """Byte for byte; decoding the line returns the object."""
    assert _called().answer(2, codec.to_fields(result)) == line
    (event,) = _calling().receive_data(line)
    assert isinstance(event, AnswerReceived)
    assert event.is_last
    assert codec.parse_result(event.fields, type(result)) == result


# Failures.

ERRORS = [
    type_
    for type_ in vars(errors).values()
    if inspect.isclass(type_) and issubclass(type_, SupervisorError)
]


def _error(type_: type[SupervisorError]) -> SupervisorError:
    if type_ is errors.SpecError:
        return errors.SpecError("services[1].count", "must be at least 1")
    if type_ is CallFailedError:
        return CallFailedError("KeyError", "'x'")
    return type_("what was wrong and what to do")


@pytest.mark.parametrize(
    ("type_", "line"),
    _pairs(ERRORS, "failures"),
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_failure_matches_golden_line(type_: type[SupervisorError], line: bytes) -> None:
    """Clients distinguish errors by name."""
    error = _error(type_)
    assert _called().fail(2, error) == line
    (event,) = _calling().receive_data(line)
    assert isinstance(event, AnswerReceived)
    assert event.error is not None
    assert event.error.wire_name == error.wire_name
    assert str(error).endswith(event.error.message)


@pytest.mark.parametrize(
    ("examples", "name"),
    [(CALLS, "operations"), (RESULTS, "results"), (ERRORS, "failures")],
    ids=["operations", "results", "failures"],
)
def test_examples_match_golden_lines_one_to_one(
    examples: Sequence[object], name: str
) -> None:
    """In the same order; a new error needs a line as well."""
    assert len(_lines(name)) == len(examples)


def test_exit_codes_are_frozen() -> None:
    """Scripts depend on them: docs/cli.md has the table."""
    assert {t.__name__: t.exit_code for t in ERRORS if t.exit_code != 1} == {
        "NoSupervisorError": 3,
        "DeadlineExceededError": 4,
        "SpecError": 10,
        "TargetError": 10,
        "AlreadyServingError": 11,
        "SocketPathError": 12,
        "RestartLimitError": 13,
        "PlatformError": 14,
        "SignificantServiceError": 15,
        "ListenError": 16,
    }


# Real dialogues with the Ruby system, recorded between our side and its own.


def _dialogue(name: str) -> list[tuple[str, dict[str, Any]]]:
    lines = (GOLDEN / f"ruby-{name}.jsonl").read_text().splitlines()
    return [(entry["from"], entry["message"]) for entry in map(json.loads, lines)]


def _say(session: Session, message: dict[str, Any]) -> dict[str, Any]:
    """Have *session* say what *message* says; return what it said."""
    fields = {k: v for k, v in message.items() if k not in ENVELOPE}
    id_ = message["id"]
    if "do" in message:
        _, line = session.call(message["do"], fields)
    elif "failed" in message:
        line = session.fail(id_, _error_of(message["error"]), fields)
    elif "finished" in message:
        line = session.answer(id_, fields)
    else:
        line = session.progress(id_, fields)
    assert line.endswith(b"\n")
    said: dict[str, Any] = json.loads(line)
    return said


ENVELOPE = {"id", "do", "finished", "failed", "error"}


def _error_of(error: Any) -> CallFailedError:
    if isinstance(error, str):
        return CallFailedError("", error)
    return CallFailedError(error["class"], error["message"])


def _hear(session: Session, message: dict[str, Any]) -> Event:
    line = json.dumps(message).encode() + b"\n"
    (event,) = session.receive_data(line)
    return event


def _without_ruby_errors(message: dict[str, Any]) -> dict[str, Any]:
    """Our failures are objects without a backtrace."""
    if "error" not in message:
        return message
    error = _error_of(message["error"])
    fields = {"class": error.wire_name, "message": error.message}
    return message | {"error": fields}


DIALOGUES = ["server", "worker", "client"]
CONNECTING = {"server": "client", "worker": "peer", "client": "peer"}
"""Who connects in each dialogue."""
OURS = {"server": "client", "worker": "server", "client": "server"}
"""Whose part is ours in each dialogue."""


def _replay(name: str) -> list[Event]:
    """Play our part in the dialogue with Ruby's *name*; return what we understood."""
    session = Session(is_connecting=OURS[name] == CONNECTING[name])
    events = []
    for sender, message in _dialogue(name):
        if sender == OURS[name]:
            assert _say(session, message) == _without_ruby_errors(message)
        else:
            events.append(_hear(session, message))
    assert session.calls_in_flight == 0
    return events


@pytest.mark.parametrize("name", DIALOGUES)
def test_ruby_dialogue_matches_both_sides(name: str) -> None:
    """Each side sends equivalent messages and receives the recorded ones."""
    sides = {is_: Session(is_connecting=is_) for is_ in (True, False)}
    for sender, message in _dialogue(name):
        is_connecting = sender == CONNECTING[name]
        said = _say(sides[is_connecting], message)
        assert said == _without_ruby_errors(message)
        event = _hear(sides[not is_connecting], message)
        assert event.id == message["id"]  # type: ignore[union-attr]
        assert isinstance(event, CallReceived) == ("do" in message)
    assert [side.calls_in_flight for side in sides.values()] == [0, 0]


def test_ruby_server_is_understood() -> None:
    """Monitors first, then the connections; failures as objects and as strings."""
    answers = _replay("server")
    by_id: dict[int, list[AnswerReceived]] = {}
    for answer in answers:
        assert isinstance(answer, AnswerReceived)
        by_id.setdefault(answer.id, []).append(answer)
    assert [(i, [a.is_last for a in by_id[i]]) for i in by_id] == [
        (2, [False, True]),
        (4, [True]),
        (6, [True]),
        (8, [True]),
        (10, [True]),
        (12, [True]),
    ]
    monitors, status = by_id[2]
    assert list(monitors.fields) == ["memory_monitor"]
    connections = [
        codec.parse_result(fields, m.ConnectionStatus)
        for fields in status.fields["connections"]
    ]
    assert [connection.process_id for connection in connections] == [13506, 13510]
    assert connections[0].state["connection_id"] == connections[0].connection_id

    unknown = by_id[4][0].error
    assert unknown is not None
    assert unknown.wire_name == "NoMethodError"
    assert unknown.message.startswith("undefined method `do_xyz'")
    assert "dispatchable.rb" not in str(unknown), "a backtrace is not for clients"

    dump = codec.parse_result(by_id[6][0].fields, reports.ThreadReport)
    assert dump.data.startswith("#<Thread:0x00007f888468b438")

    lost = by_id[8][0]
    assert lost.error is not None
    assert str(lost.error) == "Connection not found"
    assert lost.fields == {"connection_id": "nope"}

    sample = by_id[10][0].fields["data"]
    assert sample.startswith('{"total_allocated":{"size":1208,"count":14}')

    registered = codec.parse_result(by_id[12][0].fields, m.RegisterReport)
    assert registered.connection_id == "b256ce64-b62a-4fbb-bb5d-4c0fc9a6e318"


def test_ruby_worker_is_understood() -> None:
    """It registers only its pid, and answers calls."""
    register, *answers = _replay("worker")
    assert isinstance(register, CallReceived)
    operation = codec.parse_operation(register.do, register.arguments)
    assert operation == m.Register(state={"process_id": 13520})
    outcomes = []
    for answer in answers:
        assert isinstance(answer, AnswerReceived)
        assert answer.is_last
        error = answer.error and answer.error.wire_name
        outcomes.append((answer.id, error, list(answer.fields)))
    assert outcomes == [
        (3, None, ["data"]),
        (5, None, ["data"]),
        (7, None, ["data"]),
        (9, None, ["started"]),
        (11, "NameError", []),
        (13, "NoMethodError", []),
    ]


def test_ruby_client_is_understood() -> None:
    """It requests the status, and restarts everything by naming a signal."""
    operations = []
    for event in _replay("client"):
        assert isinstance(event, CallReceived)
        operations.append(codec.parse_operation(event.do, event.arguments))
    assert operations == [m.Status(), c.Restart(signal="HUP")]
