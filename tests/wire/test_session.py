"""Calls and answers over one connection: the rules, one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.kits.wire_strategies import ENVELOPE, nested
from trio_supervisor.errors import (
    BadRequestError,
    CallFailedError,
    LimitExceededError,
    LocalProtocolError,
    NoSuchWorkerError,
    RemoteProtocolError,
    SupervisorError,
    UnavailableError,
)
from trio_supervisor.wire.envelope import MAX_ID, failure
from trio_supervisor.wire.limits import Limits
from trio_supervisor.wire.session import (
    AnswerReceived,
    CallReceived,
    CallRefused,
    Event,
    Session,
)


def line(**fields: object) -> bytes:
    """A message as another JSON library writes it."""
    return json.dumps(fields).encode() + b"\n"


def connecting(**limits: int) -> Session:
    return Session(is_connecting=True, limits=Limits(**limits))


def accepting(**limits: int) -> Session:
    return Session(is_connecting=False, limits=Limits(**limits))


def receive(session: Session, data: bytes) -> list[Event]:
    return list(session.receive_data(data))


# What a message looks like.


def test_call_ids_connecting_even_accepting_odd() -> None:
    """Call ids start at 2 and 3; the line holds exactly the call."""
    for session, ids in [(connecting(), (2, 4, 6)), (accepting(), (3, 5, 7))]:
        for id_ in ids:
            expected = {"id": id_, "do": "forward", "name": "web.0"}
            got, sent = session.call("forward", {"name": "web.0"})
            assert got == id_
            assert json.loads(sent) == expected
        assert session.calls_in_flight == 3


def test_calls_from_both_sides_at_once() -> None:
    """Each answer reaches its call."""
    client, server = connecting(), accepting()
    two, ask = client.call("status", {})
    three, ask_back = server.call("thread_dump", {})
    assert receive(server, ask) == [CallReceived(two, "status", {})]
    assert receive(client, ask_back) == [CallReceived(three, "thread_dump", {})]
    (answer,) = receive(client, server.answer(two, {"workers": []}))
    (dump,) = receive(server, client.answer(three, {"data": "…"}))
    assert answer == AnswerReceived(2, {"workers": []}, is_last=True, error=None)
    assert dump == AnswerReceived(3, {"data": "…"}, is_last=True, error=None)
    assert client.calls_in_flight == server.calls_in_flight == 0


def test_intermediate_answers_precede_the_last() -> None:
    """Progress and logs are streamed this way."""
    client, server = connecting(), accepting()
    id_, ask = client.call("logs", {})
    receive(server, ask)
    for n in range(3):
        (event,) = receive(client, server.progress(id_, {"progress": n / 4}))
        assert event == AnswerReceived(id_, {"progress": n / 4}, False, None)
        assert client.calls_in_flight == 1
    (event,) = receive(client, server.answer(id_, {}))
    assert event == AnswerReceived(id_, {}, is_last=True, error=None)
    assert client.calls_in_flight == 0


def test_answer_after_the_last_is_refused() -> None:
    """Both sides reject a second last answer."""
    client, server = connecting(), accepting()
    id_, ask = client.call("status", {})
    receive(server, ask)
    last = server.answer(id_, {})
    for attempt in (server.answer, server.progress):
        with pytest.raises(LocalProtocolError, match=f"call {id_} is not in flight"):
            attempt(id_, {})
    with pytest.raises(LocalProtocolError, match=f"call {id_} is not in flight"):
        server.fail(id_, BadRequestError("no"))
    assert len(receive(client, last)) == 1
    assert receive(client, last) == []


def test_empty_lines_are_ignored() -> None:
    """A peer may send empty lines as keep-alives."""
    assert receive(accepting(), b"\n\n" + line(id=2, do="ping") + b"\n") == [
        CallReceived(2, "ping", {})
    ]


def test_call_other_fields_are_arguments() -> None:
    """Unknown fields too: a newer client may call an older server."""
    (event,) = receive(accepting(), line(id=2, do="restart", signal="HUP", new=[1]))
    assert event == CallReceived(2, "restart", {"signal": "HUP", "new": [1]})


@pytest.mark.parametrize("name", sorted(ENVELOPE))
def test_envelope_names_as_fields_are_refused(name: str) -> None:
    """They would change the message; the call can still be answered."""
    client, server = connecting(), accepting()
    bad = {"fine": 1, name: 1}
    with pytest.raises(LocalProtocolError, match=f": {name}$"):
        client.call("status", bad)
    assert client.calls_in_flight == 0
    id_, ask = client.call("status", {})
    assert id_ == 2, "a number was wasted"
    receive(server, ask)
    with pytest.raises(LocalProtocolError, match=f": {name}$"):
        server.progress(id_, bad)
    with pytest.raises(LocalProtocolError, match=f": {name}$"):
        server.answer(id_, bad)
    with pytest.raises(LocalProtocolError, match=f": {name}$"):
        server.fail(id_, BadRequestError("no"), bad)
    (event,) = receive(client, server.answer(id_, {"fine": 1}))
    assert event == AnswerReceived(id_, {"fine": 1}, is_last=True, error=None)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({1, 2}, id="no JSON"),
        pytest.param("x" * 1_000, id="too long"),
        pytest.param(nested(8), id="too deep"),
    ],
)
def test_unsendable_value_raises_locally(value: object) -> None:
    """The connection stays open, and the call can be answered otherwise."""
    limits = {"line": 500, "depth": 8}
    client, server = connecting(**limits), accepting(**limits)
    bad = {"value": value}
    with pytest.raises(LocalProtocolError):
        client.call("status", bad)
    id_, ask = client.call("status", {})
    assert (id_, client.calls_in_flight) == (2, 1)
    receive(server, ask)
    with pytest.raises(LocalProtocolError):
        server.progress(id_, bad)
    with pytest.raises(LocalProtocolError):
        server.answer(id_, bad)
    with pytest.raises(LocalProtocolError):
        server.fail(id_, BadRequestError("no"), bad)
    (event,) = receive(client, server.fail(id_, UnavailableError("too much")))
    assert isinstance(event, AnswerReceived)
    assert event.error is not None


@pytest.mark.parametrize("depth", [2, 8])
def test_message_at_limits_is_accepted(depth: int) -> None:
    """Exactly at the limits of length and depth."""
    tree = {"value": nested(depth - 1), "fill": ""}
    size = len(connecting().call("status", tree)[1]) - 1
    tree["fill"] = "x" * (100 - size)
    limits = {"line": 100, "depth": depth}
    _, ask = connecting(**limits).call("status", tree)
    assert receive(accepting(**limits), ask) == [CallReceived(2, "status", tree)]
    with pytest.raises(LocalProtocolError, match=r"102 bytes is longer than.*100"):
        connecting(**limits).call("status", tree | {"fill": tree["fill"] + "x"})  # type: ignore[operator]
    with pytest.raises(LocalProtocolError, match=f"deeper than .* {depth}"):
        connecting(**limits).call("status", {"value": nested(depth)})


# Failures.


@pytest.mark.parametrize(
    ("error", "name", "message"),
    [
        (NoSuchWorkerError("no worker 'x'"), "NoSuchWorker", "no worker 'x'"),
        (CallFailedError("KeyError", "'x'"), "KeyError", "'x'"),
        (CallFailedError("", "not found"), "CallFailed", "not found"),
        (SupervisorError(), "Supervisor", ""),
    ],
)
def test_failure_keeps_class_and_message(
    error: SupervisorError, name: str, message: str
) -> None:
    """A forwarded failure keeps its original name."""
    client, server = connecting(), accepting()
    id_, ask = client.call("forward", {})
    receive(server, ask)
    sent = server.fail(id_, error, {"connection_id": "x"})
    assert json.loads(sent) == {
        "id": id_,
        "finished": True,
        "failed": True,
        "error": {"class": name, "message": message},
        "connection_id": "x",
    }
    (event,) = receive(client, sent)
    assert isinstance(event, AnswerReceived)
    assert (event.is_last, event.fields) == (True, {"connection_id": "x"})
    assert event.error is not None
    assert (event.error.error_class, event.error.message) == (name, message)
    assert event.error.wire_name == name


@pytest.mark.parametrize(
    ("error", "name", "message"),
    [
        pytest.param("Connection not found", "", "Connection not found", id="a string"),
        pytest.param(
            {"class": "NameError", "message": "undefined", "backtrace": ["a.rb:1"]},
            "NameError",
            "undefined",
            id="an object with a backtrace",
        ),
        pytest.param(None, "", "the peer gave no reason: None", id="null"),
        pytest.param(7, "", "the peer gave no reason: 7", id="a number"),
        pytest.param(
            {"class": 1, "message": "x"},
            "",
            "the peer gave no reason: {'class': 1, 'message': 'x'}",
            id="an object of another shape",
        ),
    ],
)
def test_failure_as_object_or_string(error: object, name: str, message: str) -> None:
    """Ruby sends both; in either form the call fails."""
    client = connecting()
    client.call("forward", {})
    (event,) = receive(client, line(id=2, finished=True, failed=True, error=error))
    assert isinstance(event, AnswerReceived)
    assert event.error is not None
    assert (event.error.error_class, event.error.message) == (name, message)


def test_failure_without_error_fails() -> None:
    """An error without `failed` is not a failure."""
    client = connecting()
    client.call("a", {})
    client.call("b", {})
    failed, fine = receive(
        client,
        line(id=2, finished=True, failed=True)
        + line(id=4, finished=True, failed=False, error="x"),
    )
    assert isinstance(failed, AnswerReceived)
    assert isinstance(failed.error, CallFailedError)
    assert fine == AnswerReceived(4, {}, is_last=True, error=None)


def test_intermediate_answer_never_fails() -> None:
    """A failure before the last answer is an intermediate answer."""
    client = connecting()
    client.call("status", {})
    (event,) = receive(client, line(id=2, failed=True, error="x", rest=1))
    assert event == AnswerReceived(2, {"rest": 1}, is_last=False, error=None)
    assert client.calls_in_flight == 1


def test_huge_error_is_truncated() -> None:
    """A peer's invalid data is quoted in part only."""
    client = connecting()
    client.call("forward", {})
    (event,) = receive(
        client, line(id=2, finished=True, failed=True, error=["x" * 10_000])
    )
    assert isinstance(event, AnswerReceived)
    assert len(str(event.error)) < 200


@pytest.mark.parametrize("name", ["finished", "failed"])
@pytest.mark.parametrize("value", [1, 0, None, "true", "false", [], {}])
def test_flag_not_bool_is_refused(name: str, value: object) -> None:
    """A truthy string is ambiguous."""
    client = connecting()
    client.call("status", {})
    with pytest.raises(RemoteProtocolError, match=f"{name}: expected true or false"):
        receive(client, line(**{"id": 2, name: value}))


# Ids.


@pytest.mark.parametrize(
    "id_",
    [
        pytest.param("2", id="a string"),
        pytest.param(True, id="a bool"),
        pytest.param(2.0, id="a float"),
        pytest.param(None, id="null"),
        pytest.param(-2, id="negative"),
        pytest.param([2], id="an array"),
        pytest.param({"id": 2}, id="an object"),
        pytest.param(MAX_ID + 1, id="one too large"),
        pytest.param(2**64, id="past 64 bits"),
        pytest.param(10**300, id="past most of all"),
    ],
)
@pytest.mark.parametrize("rest", [{"do": "status"}, {"finished": True}, {}])
def test_invalid_id_ends_session(id_: object, rest: dict[str, Any]) -> None:
    """True and 2.0 are not valid ids, although Python compares them to ints."""
    client = connecting()
    client.call("status", {})
    with pytest.raises(RemoteProtocolError, match=r"^id: expected"):
        receive(client, line(id=id_, **rest))


def test_missing_id_ends_session() -> None:
    """Without an id, no call can fail."""
    with pytest.raises(RemoteProtocolError, match=r"^id: expected"):
        receive(accepting(), line(do="status"))


def test_failure_without_id_ends_session() -> None:
    """Its message becomes the reason."""
    goodbye = failure(LimitExceededError("a line is longer than 8 bytes"))
    for session in (connecting(), accepting()):
        with pytest.raises(
            RemoteProtocolError,
            match="the peer hung up: LimitExceeded: a line is longer than 8 bytes",
        ):
            receive(session, line(**goodbye))


@pytest.mark.parametrize("id_", [0, 1, 2, 3, MAX_ID])
def test_call_any_id_is_accepted(id_: int) -> None:
    """A peer may choose its ids freely, if calls in flight do not share one."""
    server = accepting()
    assert receive(server, line(id=id_, do="ping")) == [CallReceived(id_, "ping", {})]
    assert json.loads(server.answer(id_, {})) == {"id": id_, "finished": True}


def test_unknown_id_with_do_is_call_else_late_answer() -> None:
    """A late answer is dropped."""
    late = line(id=8, finished=True) + line(id=9) + line(id=10, finished="?", failed=3)
    assert receive(connecting(), late + line(id=3, do="ping")) == [
        CallReceived(3, "ping", {})
    ]


def test_known_id_is_answer_even_with_do() -> None:
    """The id decides."""
    client = connecting()
    client.call("status", {})
    assert receive(client, line(id=2, do="status", x=1)) == [
        AnswerReceived(2, {"x": 1}, is_last=False, error=None)
    ]


@pytest.mark.parametrize("do", [None, 1, True, ["status"], {}])
def test_operation_name_not_string_ends_session(do: object) -> None:
    """Any other type ends the session."""
    with pytest.raises(RemoteProtocolError, match=r"^do: expected a name"):
        receive(accepting(), line(id=2, do=do))


def test_duplicate_id_is_refused_first_call_continues() -> None:
    """The id can be used again after the answer."""
    server = accepting()
    ask = line(id=2, do="status")
    call, refusal = receive(server, ask + line(id=2, do="stop", names=["web"]))
    assert call == CallReceived(2, "status", {})
    assert isinstance(refusal, CallRefused)
    reply = json.loads(refusal.reply)
    assert reply.pop("error")["class"] == "RemoteProtocol"
    assert reply == {"id": 2, "finished": True, "failed": True}
    assert refusal.reply.endswith(b"\n")
    server.answer(2, {})
    assert receive(server, ask) == [CallReceived(2, "status", {})]


def test_peer_using_our_ids_is_tolerated() -> None:
    """The next call of this side takes a free id."""
    server = accepting()
    receive(server, line(id=3, do="a") + line(id=5, do="b"))
    id_, ask = server.call("thread_dump", {})
    assert (id_, json.loads(ask)["id"]) == (7, 7)
    server.answer(3, {})
    assert server.call("thread_dump", {})[0] == 9


def test_call_ids_end_at_64_bit_limit() -> None:
    """After 2**62 calls, the connection must be renewed."""
    client = connecting()
    client._next_id = MAX_ID - 1
    assert client.call("ping", {})[0] == MAX_ID - 1
    with pytest.raises(LocalProtocolError, match="connect again"):
        client.call("ping", {})


# Calls in flight, and calls given up.


def test_too_many_calls_in_flight_end_session() -> None:
    """Earlier messages are valid; an answer frees a slot."""
    server = accepting(calls=2)
    assert len(receive(server, line(id=2, do="a") + line(id=4, do="b"))) == 2
    server.answer(2, {})
    assert len(receive(server, line(id=6, do="c"))) == 1
    events = server.receive_data(line(id=8, do="d"))
    with pytest.raises(LimitExceededError, match="more than 2 calls"):
        next(events)


def test_duplicate_id_counts_once() -> None:
    """A call refused for its id does not exceed the limit."""
    server = accepting(calls=1)
    receive(server, line(id=2, do="a"))
    (event,) = receive(server, line(id=2, do="a"))
    assert isinstance(event, CallRefused)


def test_call_limit_of_peer_is_respected() -> None:
    """The caller is told to retry, and can after an answer."""
    client = connecting(calls=2)
    client.call("a", {})
    client.call("b", {})
    with pytest.raises(UnavailableError, match="2 calls are already in flight"):
        client.call("c", {})
    receive(client, line(id=2))
    with pytest.raises(UnavailableError):
        client.call("c", {})
    receive(client, line(id=2, finished=True))
    assert client.call("c", {})[0] == 6


def test_cancelled_call_answers_are_dropped() -> None:
    """Answers to other calls arrive."""
    client = connecting()
    client.call("a", {})
    client.call("b", {})
    client.forget(2)
    assert client.calls_in_flight == 1
    client.forget(2)
    client.forget(99)
    answers = line(id=2, x=1) + line(id=2, finished=True) + line(id=4, finished=True)
    assert receive(client, answers) == [AnswerReceived(4, {}, True, None)]


def test_cancelled_call_counts_until_answered() -> None:
    """Otherwise a slow peer would disconnect a caller with short timeouts."""
    client, server = connecting(calls=2), accepting(calls=2)
    for _ in range(2):
        id_, ask = client.call("slow", {})
        client.forget(id_)
        receive(server, ask)
    with pytest.raises(UnavailableError):
        client.call("quick", {})
    receive(client, server.progress(2, {}))
    with pytest.raises(UnavailableError):
        client.call("quick", {})
    receive(client, server.answer(2, {}))
    _, ask = client.call("quick", {})
    assert receive(server, ask) == [CallReceived(6, "quick", {})]


def test_cancel_of_each_call_fits_full_connection() -> None:
    """Otherwise only the peer could free a slot."""
    client, server = connecting(calls=2), accepting(calls=2)
    asked = [client.call("slow", {}), client.call("slow", {})]
    for id_ in (2, 4):
        client.forget(id_)
        asked.append(client.call("cancel", {"call": id_}))
    with pytest.raises(UnavailableError):
        client.call("quick", {})
    with pytest.raises(UnavailableError):
        client.call("cancel", {"call": 2})
    for id_, ask in asked:
        (event,) = receive(server, ask)
        assert isinstance(event, CallReceived)
        assert event.id == id_
    with pytest.raises(LimitExceededError):
        receive(server, line(id=10, do="cancel", call=2))
    for id_, _ in asked:
        assert len(receive(client, server.answer(id_, {}))) == (id_ > 4)
    assert client.call("quick", {})[0] == 10


# The stream.


def test_messages_before_fault_arrive() -> None:
    """The session ends after them."""
    events = accepting().receive_data(line(id=2, do="ping") + b"nonsense\n")
    assert next(events) == CallReceived(2, "ping", {})
    with pytest.raises(RemoteProtocolError, match=r"not JSON: .*nonsense"):
        next(events)


@pytest.mark.parametrize(
    ("limits", "data", "complaint"),
    [
        ({"line": 9}, b"x" * 10, "longer than 9 bytes"),
        ({"line": 9}, b'{"id":2}  \n', "longer than 9 bytes"),
        ({"depth": 2}, line(id=2, do="a", x=[[]]), "deeper than 2 levels"),
        ({"depth": 2}, line(id=2, late=[{}]), "deeper than 2 levels"),
    ],
)
def test_session_limits_are_configurable(
    limits: dict[str, int], data: bytes, complaint: str
) -> None:
    """Late answers have the same limits."""
    with pytest.raises(LimitExceededError, match=complaint):
        receive(accepting(**limits), data)


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_overlong_answer_fails_only_its_call(size: int) -> None:
    """For any split of the line; adjacent messages arrive intact."""
    client = connecting(line=100)
    for _ in range(3):
        client.call("x", {})
    stream = b"".join(
        (
            line(id=2, finished=True),
            line(id=4, finished=True, data="x" * 200),
            line(id=6, finished=True),
        )
    )
    events = [
        event
        for start in range(0, len(stream), size)
        for event in receive(client, stream[start : start + size])
    ]
    assert [(e.id, e.is_last) for e in events if isinstance(e, AnswerReceived)] == [
        (2, True),
        (4, True),
        (6, True),
    ]
    (error,) = [e.error for e in events if isinstance(e, AnswerReceived) and e.error]
    assert str(error) == "LimitExceeded: the answer is longer than 100 bytes"
    assert client.calls_in_flight == 0
    assert receive(client, line(id=4, finished=True)) == []


def test_overlong_call_is_refused_alone() -> None:
    """Its id is free again; later calls run."""
    server = accepting(line=100)
    refused, call = receive(
        server, line(id=2, do="logs", names=["x" * 200]) + line(id=2, do="ping")
    )
    assert isinstance(refused, CallRefused)
    assert json.loads(refused.reply) == {
        "id": 2,
        "finished": True,
        "failed": True,
        "error": {
            "class": "LimitExceeded",
            "message": "the call of 'logs' is longer than 100 bytes",
        },
    }
    assert call == CallReceived(2, "ping", {})


def test_overlong_answer_is_told_before_an_error_in_the_same_data() -> None:
    """Wherever the stream is cut."""
    client = connecting(line=600, call=600)
    client.call("dump", {})
    overlong = line(id=2, data="x" * 700)
    events = client.receive_data(overlong + b"x" * 700 + b"\n")
    answer = next(events)
    assert isinstance(answer, AnswerReceived)
    assert answer.is_last
    with pytest.raises(LimitExceededError):
        next(events)


def test_large_answer_with_an_invalid_flag_fails_alone() -> None:
    client = connecting(call=600)
    client.call("dump", {})
    (answer,) = receive(client, line(id=2, data="x" * 700, failed=3))
    assert isinstance(answer, AnswerReceived)
    assert "failed: expected true or false" in str(answer.error)


@pytest.mark.parametrize("rest", [b'"a":[1}', b'"failed":3}'])
def test_answer_that_is_large_by_its_whitespace_is_checked(rest: bytes) -> None:
    """A supervisor passes on what ends no connection of a client."""
    data = b'"data":"%s"' % (b"x" * 300)
    worker = Session(is_connecting=False, limits=Limits(call=600), parses_large=False)
    worker.call("dump", {})
    (answer,) = receive(worker, b'{"id":3%s,%s,%s\n' % (b" " * 400, data, rest))
    assert isinstance(answer, AnswerReceived)
    server = accepting(call=600)
    receive(server, line(id=2, do="forward"))
    with pytest.raises(LocalProtocolError, match="malformed"):
        server.progress(2, answer.fields)


def test_overlong_late_answer_is_dropped() -> None:
    client = connecting(line=100, calls=1)
    id_, _ = client.call("x", {})
    client.forget(id_)
    assert receive(client, line(id=id_, finished=True, data="x" * 200)) == []
    client.call("x", {})


@pytest.mark.parametrize(
    "head",
    [
        b'{"data":"' + b"x" * 200,
        b'{"id":7,"finished":true,"data":"' + b"x" * 200,
        b'{"id":-2,"do":"x",' + b"x" * 200,
        b'{"id":9223372036854775808,"do":"x",' + b"x" * 200,
        b"x" * 200,
    ],
)
def test_overlong_line_of_unknown_call_ends_session(head: bytes) -> None:
    """No call can fail instead."""
    with pytest.raises(LimitExceededError, match="a line is longer than 100 bytes"):
        receive(accepting(line=100), head)


def test_overlong_line_without_end_ends_session() -> None:
    client = connecting(line=100, skipped=1000)
    client.call("x", {})
    (failed,) = receive(client, b'{"id":2,"data":"' + b"x" * 500)
    assert isinstance(failed, AnswerReceived)
    with pytest.raises(LimitExceededError, match="a line is longer than 1000 bytes"):
        receive(client, b"x" * 500)


def test_end_of_stream_only_between_messages() -> None:
    """A partial message means that the peer died."""
    session = accepting()
    receive(session, line(id=2, do="ping"))
    session.receive_eof()
    receive(session, b'{"id":4')
    with pytest.raises(RemoteProtocolError, match="inside a line"):
        session.receive_eof()
