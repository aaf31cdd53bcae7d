"""One session against anything, and two against each other and a simple model."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import pytest
from attrs import define, field
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from tests.kits.wire_strategies import chopped, fields, json_values, texts
from trio_supervisor.errors import (
    CallFailedError,
    NoSuchWorkerError,
    RemoteProtocolError,
    UnavailableError,
)
from trio_supervisor.wire.envelope import failure
from trio_supervisor.wire.limits import Limits
from trio_supervisor.wire.session import (
    AnswerReceived,
    CallReceived,
    Event,
    Session,
)


def connecting(**limits: int) -> Session:
    return Session(is_connecting=True, limits=Limits(**limits))


def accepting(**limits: int) -> Session:
    return Session(is_connecting=False, limits=Limits(**limits))


flags = st.booleans() | json_values
messages = st.fixed_dictionaries(
    {"id": st.sampled_from([2, 3, 4, 2]) | json_values},
    optional={
        "do": st.sampled_from(["ping", "status"]) | json_values,
        "finished": flags,
        "failed": flags,
        "error": json_values,
        "data": json_values,
    },
)
anything = st.lists(
    messages.map(lambda tree: json.dumps(tree).encode()) | st.binary(max_size=20)
).map(b"\n".join)


@given(anything, st.data())
@example(b"[" * 100_000 + b"\n", None)
@example(b'{"id":' + b"[" * 2_000 + b"]" * 2_000 + b"}\n", None)
@example(b'{"id":NaN}\n', None)
@example(b'{"id":2,"do":"\\ud800"}\n', None)
@example(b'{"id":' + b"1" * 400 + b"}\n", None)
@example(b'{"id":1' + b"0" * 400 + b',"id":2,"do":"x"}\n', None)
def test_any_input_is_event_or_remote_error(
    stream: bytes, data: st.DataObject | None
) -> None:
    """Never another exception, and the same for any split of the stream."""

    def outcome(pieces: list[bytes]) -> tuple[list[Event | None], str]:
        session, events = connecting(), []
        session.call("status", {})
        try:
            for piece in pieces:
                for event in session.receive_data(piece):
                    events.append(_comparable(event))  # noqa: PERF401 (kept on an error)
            session.receive_eof()
        except RemoteProtocolError as exc:
            return events, str(exc)
        return events, "fine"

    assert outcome([stream]) == outcome(
        data.draw(chopped(stream)) if data else [stream[:7], stream[7:]]
    )


def _comparable(event: Event) -> Any:
    if isinstance(event, AnswerReceived) and event.error is not None:
        return event._replace(error=None), event.error.error_class, event.error.message
    return event


@given(st.text(st.characters()), st.text(st.characters()))
def test_any_failure_is_sendable(name: str, message: str) -> None:
    """Including lone surrogates."""
    assert failure(CallFailedError(name, message)) == {
        "finished": True,
        "failed": True,
        "error": {"class": name or "CallFailed", "message": message},
    }
    server = accepting()
    list(server.receive_data(b'{"id":2,"do":"x"}\n'))
    assert json.loads(server.fail(2, CallFailedError(name, message)))["failed"] is True


# There is more room for cancels, which have a rule of their own.
operations = texts.filter(lambda do: do != "cancel")


@define(eq=False)
class Side:
    """What a person with pen and paper knows of one side."""

    session: Session
    next_id: int
    calls: dict[int, bool] = field(factory=dict)
    """Calls of this side without a last answer; the value: whether it is waited for."""
    cancelled: set[int] = field(factory=set)
    """Calls that were cancelled, and the cancels, which cannot be."""
    to_answer: list[int] = field(factory=list)
    sent: bytearray = field(factory=bytearray)
    """Written by this side, not yet read by the other."""
    expected: deque[tuple[int, Event]] = field(factory=deque)
    """Where in `sent` each message ends, and what the other side will make of it."""

    def send(self, data: bytes, event: Event) -> None:
        self.sent += data
        self.expected.append((len(self.sent), event))


class Conversation(RuleBasedStateMachine):
    """Two sessions and two byte streams, against the model in `Side`.

    Neither may ever raise for what the other sends: two correct sides never end
    their connection, however calls, answers and abandoned calls cross on the way.
    """

    limit = 3

    def __init__(self) -> None:
        super().__init__()
        self.sides = (
            Side(connecting(calls=self.limit), 2),
            Side(accepting(calls=self.limit), 3),
        )

    @rule(i=st.sampled_from([0, 1]), do=operations, args=fields)
    def call(self, i: int, do: str, args: Mapping[str, Any]) -> None:
        side = self.sides[i]
        if len(side.calls) >= self.limit:
            with pytest.raises(UnavailableError):
                side.session.call(do, args)
            return
        id_, data = side.session.call(do, args)
        assert id_ == side.next_id
        side.next_id += 2
        side.calls[id_] = True
        side.send(data, CallReceived(id_, do, dict(args)))

    @precondition(lambda self: any(side.calls for side in self.sides))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Each call at most once, as link does; there must always be room for it."""
        side = data.draw(st.sampled_from([s for s in self.sides if s.calls]))
        id_ = data.draw(st.sampled_from(sorted(side.calls)))
        if id_ in side.cancelled:
            return
        side.session.forget(id_)
        side.calls[id_] = False
        cancel_id, data_ = side.session.call("cancel", {"call": id_})
        assert cancel_id == side.next_id
        side.next_id += 2
        side.calls[cancel_id] = True
        side.cancelled |= {id_, cancel_id}
        side.send(data_, CallReceived(cancel_id, "cancel", {"call": id_}))

    @precondition(lambda self: any(side.to_answer for side in self.sides))
    @rule(data=st.data(), fields=fields, how=st.sampled_from(["more", "last", "fail"]))
    def answer(self, data: st.DataObject, fields: Mapping[str, Any], how: str) -> None:
        side = data.draw(st.sampled_from([s for s in self.sides if s.to_answer]))
        id_ = data.draw(st.sampled_from(side.to_answer))
        event = AnswerReceived(id_, dict(fields), how != "more", None)
        if how == "more":
            line = side.session.progress(id_, fields)
        else:
            side.to_answer.remove(id_)
            if how == "last":
                line = side.session.answer(id_, fields)
            else:
                error = NoSuchWorkerError("gone")
                line = side.session.fail(id_, error, fields)
                event = event._replace(error=CallFailedError("NoSuchWorker", "gone"))
        side.send(line, event)

    @precondition(lambda self: any(side.calls for side in self.sides))
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        side = data.draw(st.sampled_from([s for s in self.sides if s.calls]))
        id_ = data.draw(st.sampled_from(sorted(side.calls)))
        side.session.forget(id_)
        side.calls[id_] = False

    @precondition(lambda self: any(side.sent for side in self.sides))
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        i = data.draw(st.sampled_from([i for i in (0, 1) if self.sides[i].sent]))
        self._deliver(i, data.draw(st.integers(1, len(self.sides[i].sent))))

    def _deliver(self, i: int, size: int) -> None:
        sender, receiver = self.sides[i], self.sides[1 - i]
        piece = bytes(sender.sent[:size])
        del sender.sent[:size]
        arrived = []
        while sender.expected and sender.expected[0][0] <= size:
            arrived.append(sender.expected.popleft()[1])
        sender.expected = deque((end - size, e) for end, e in sender.expected)
        expected = [event for event in arrived if self._is_seen(receiver, event)]
        events = list(receiver.session.receive_data(piece))
        assert list(map(_comparable, events)) == list(map(_comparable, expected))

    def _is_seen(self, receiver: Side, event: Event) -> bool:
        if isinstance(event, CallReceived):
            receiver.to_answer.append(event.id)
            return True
        assert isinstance(event, AnswerReceived)
        is_waited_for = receiver.calls[event.id]
        if event.is_last:
            del receiver.calls[event.id]
        return is_waited_for

    @invariant()
    def knows_how_many_calls_wait(self) -> None:
        for side in self.sides:
            assert side.session.calls_in_flight == sum(side.calls.values())

    def teardown(self) -> None:
        for i, side in enumerate(self.sides):
            self._deliver(i, len(side.sent))
            self.sides[1 - i].session.receive_eof()


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=60, stateful_step_count=40)
