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


def test_the_connecting_side_counts_even_and_the_accepting_side_odd() -> None:
    """From 2 and from 3, and the line says just what was asked."""
    for session, ids in [(connecting(), (2, 4, 6)), (accepting(), (3, 5, 7))]:
        for id_ in ids:
            expected = {"id": id_, "do": "forward", "name": "web.0"}
            got, sent = session.call("forward", {"name": "web.0"})
            assert got == id_
            assert json.loads(sent) == expected
        assert session.calls_in_flight == 3


def test_both_sides_call_at_the_same_time() -> None:
    """And each answer finds its call."""
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


def test_any_number_of_intermediate_answers_come_before_the_last() -> None:
    """That is how progress and logs stream."""
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


def test_after_its_last_answer_a_call_has_no_other() -> None:
    """Neither side gets away with one."""
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


def test_lines_without_anything_are_no_messages() -> None:
    """A peer may send one now and then to keep the connection warm."""
    assert receive(accepting(), b"\n\n" + line(id=2, do="ping") + b"\n") == [
        CallReceived(2, "ping", {})
    ]


def test_what_a_call_carries_beside_id_and_do_are_its_arguments() -> None:
    """Unknown ones too: a newer client may talk to an older server."""
    (event,) = receive(accepting(), line(id=2, do="restart", signal="HUP", new=[1]))
    assert event == CallReceived(2, "restart", {"signal": "HUP", "new": [1]})


@pytest.mark.parametrize("name", sorted(ENVELOPE))
def test_what_the_envelope_uses_is_no_argument_and_no_result(name: str) -> None:
    """It would change the meaning of the message; the call is still to be answered."""
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
def test_what_the_wire_does_not_carry_is_told_to_who_says_it(value: object) -> None:
    """The connection goes on, and the call can be answered in another way."""
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
def test_what_one_side_may_send_the_other_side_takes(depth: int) -> None:
    """At the limits exactly, of length and of depth."""
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
def test_a_failure_crosses_the_wire_with_class_and_message(
    error: SupervisorError, name: str, message: str
) -> None:
    """One that is passed on keeps the name that it came with."""
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
def test_a_failure_may_come_as_an_object_or_a_string(
    error: object, name: str, message: str
) -> None:
    """Ruby sends both. Whatever else it is, the call failed all the same."""
    client = connecting()
    client.call("forward", {})
    (event,) = receive(client, line(id=2, finished=True, failed=True, error=error))
    assert isinstance(event, AnswerReceived)
    assert event.error is not None
    assert (event.error.error_class, event.error.message) == (name, message)


def test_a_failure_without_an_error_is_still_one() -> None:
    """And an error without `failed` is none."""
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


def test_only_a_last_answer_fails() -> None:
    """What is called a failure before the end is an intermediate answer."""
    client = connecting()
    client.call("status", {})
    (event,) = receive(client, line(id=2, failed=True, error="x", rest=1))
    assert event == AnswerReceived(2, {"rest": 1}, is_last=False, error=None)
    assert client.calls_in_flight == 1


def test_a_huge_error_is_not_repeated_in_full() -> None:
    """What a peer says wrong is quoted, not echoed."""
    client = connecting()
    client.call("forward", {})
    (event,) = receive(
        client, line(id=2, finished=True, failed=True, error=["x" * 10_000])
    )
    assert isinstance(event, AnswerReceived)
    assert len(str(event.error)) < 200


@pytest.mark.parametrize("name", ["finished", "failed"])
@pytest.mark.parametrize("value", [1, 0, None, "true", "false", [], {}])
def test_a_flag_is_true_or_false_and_nothing_else(name: str, value: object) -> None:
    """A truthy string could mean either."""
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
def test_an_id_that_is_no_call_number_ends_the_session(
    id_: object, rest: dict[str, Any]
) -> None:
    """True is an int in Python, and 2.0 equals 2: not here."""
    client = connecting()
    client.call("status", {})
    with pytest.raises(RemoteProtocolError, match=r"^id: expected"):
        receive(client, line(id=id_, **rest))


def test_a_message_without_an_id_ends_the_session() -> None:
    """There is nobody it could be for."""
    with pytest.raises(RemoteProtocolError, match=r"^id: expected"):
        receive(accepting(), line(do="status"))


def test_a_failure_without_an_id_is_a_peer_that_hangs_up() -> None:
    """What it says is the reason that is given here."""
    goodbye = failure(LimitExceededError("a line is longer than 8 bytes"))
    for session in (connecting(), accepting()):
        with pytest.raises(
            RemoteProtocolError,
            match="the peer hung up: LimitExceeded: a line is longer than 8 bytes",
        ):
            receive(session, line(**goodbye))


@pytest.mark.parametrize("id_", [0, 1, 2, 3, MAX_ID])
def test_any_call_number_is_good_for_a_call(id_: int) -> None:
    """Who counts how is up to the peer, as long as no two calls share a number."""
    server = accepting()
    assert receive(server, line(id=id_, do="ping")) == [CallReceived(id_, "ping", {})]
    assert json.loads(server.answer(id_, {})) == {"id": id_, "finished": True}


def test_an_unknown_id_with_do_is_a_call_and_without_do_a_late_answer() -> None:
    """A late answer is dropped, whatever it holds."""
    late = line(id=8, finished=True) + line(id=9) + line(id=10, finished="?", failed=3)
    assert receive(connecting(), late + line(id=3, do="ping")) == [
        CallReceived(3, "ping", {})
    ]


def test_a_known_id_is_an_answer_even_with_do() -> None:
    """The id decides."""
    client = connecting()
    client.call("status", {})
    assert receive(client, line(id=2, do="status", x=1)) == [
        AnswerReceived(2, {"x": 1}, is_last=False, error=None)
    ]


@pytest.mark.parametrize("do", [None, 1, True, ["status"], {}])
def test_the_name_of_an_operation_is_a_string(do: object) -> None:
    """Everything else ends the session."""
    with pytest.raises(RemoteProtocolError, match=r"^do: expected a name"):
        receive(accepting(), line(id=2, do=do))


def test_an_id_used_again_while_in_flight_is_refused_and_the_first_call_goes_on() -> (
    None
):
    """Never an echo; once answered, the number is free again."""
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


def test_a_peer_that_counts_as_we_do_confuses_nothing() -> None:
    """Our next call takes a number that is free."""
    server = accepting()
    receive(server, line(id=3, do="a") + line(id=5, do="b"))
    id_, ask = server.call("thread_dump", {})
    assert (id_, json.loads(ask)["id"]) == (7, 7)
    server.answer(3, {})
    assert server.call("thread_dump", {})[0] == 9


def test_numbers_end_at_what_peers_in_other_languages_have() -> None:
    """After 2**62 calls a connection is to be renewed."""
    client = connecting()
    client._next_id = MAX_ID - 1
    assert client.call("ping", {})[0] == MAX_ID - 1
    with pytest.raises(LocalProtocolError, match="connect again"):
        client.call("ping", {})


# Calls in flight, and calls given up.


def test_a_peer_with_too_many_calls_in_flight_loses_its_connection() -> None:
    """What came before is still good; an answer makes room for another."""
    server = accepting(calls=2)
    assert len(receive(server, line(id=2, do="a") + line(id=4, do="b"))) == 2
    server.answer(2, {})
    assert len(receive(server, line(id=6, do="c"))) == 1
    events = server.receive_data(line(id=8, do="d"))
    with pytest.raises(LimitExceededError, match="more than 2 calls"):
        next(events)


def test_a_reused_id_counts_once() -> None:
    """At the limit, a call refused for its id is no reason to hang up."""
    server = accepting(calls=1)
    receive(server, line(id=2, do="a"))
    (event,) = receive(server, line(id=2, do="a"))
    assert isinstance(event, CallRefused)


def test_this_side_does_not_ask_for_more_than_the_peer_bears() -> None:
    """The caller is told to try again, and can after an answer."""
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


def test_the_answers_of_a_call_given_up_are_late_ones() -> None:
    """None of them arrives; that of another call does."""
    client = connecting()
    client.call("a", {})
    client.call("b", {})
    client.forget(2)
    assert client.calls_in_flight == 1
    client.forget(2)
    client.forget(99)
    answers = line(id=2, x=1) + line(id=2, finished=True) + line(id=4, finished=True)
    assert receive(client, answers) == [AnswerReceived(4, {}, True, None)]


def test_a_call_given_up_counts_until_the_peer_answered_it() -> None:
    """Else a peer that is slow would hang up on a caller with little patience."""
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


def test_a_full_connection_has_room_for_a_cancel_of_each_call() -> None:
    """Else it would stay full: only the peer could end what it is busy with."""
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


def test_what_was_good_before_a_fault_still_arrives() -> None:
    """Then the session is over."""
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
def test_the_limits_of_a_session_are_those_it_was_given(
    limits: dict[str, int], data: bytes, complaint: str
) -> None:
    """For late answers as for all others."""
    with pytest.raises(LimitExceededError, match=complaint):
        receive(accepting(**limits), data)


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_an_overlong_answer_fails_its_call_alone(size: int) -> None:
    """However it is cut; what is around it is as it was."""
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


def test_an_overlong_call_is_refused_alone() -> None:
    """Its number is free again; the next calls are run."""
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


def test_an_overlong_late_answer_is_dropped() -> None:
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
def test_an_overlong_line_of_no_known_call_ends_the_session(head: bytes) -> None:
    """Nobody could be told."""
    with pytest.raises(LimitExceededError, match="a line is longer than 100 bytes"):
        receive(accepting(line=100), head)


def test_an_overlong_line_that_does_not_end_ends_the_session() -> None:
    client = connecting(line=100, skipped=1000)
    client.call("x", {})
    (failed,) = receive(client, b'{"id":2,"data":"' + b"x" * 500)
    assert isinstance(failed, AnswerReceived)
    with pytest.raises(LimitExceededError, match="a line is longer than 1000 bytes"):
        receive(client, b"x" * 500)


def test_a_stream_may_end_between_messages_only() -> None:
    """Half a message is a peer that died."""
    session = accepting()
    receive(session, line(id=2, do="ping"))
    session.receive_eof()
    receive(session, b'{"id":4')
    with pytest.raises(RemoteProtocolError, match="inside a line"):
        session.receive_eof()
