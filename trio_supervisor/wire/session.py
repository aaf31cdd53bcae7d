"""Keep track of calls and answers over one connection: a state machine without I/O.

The connecting side numbers its calls 2, 4, 6 …, the accepting side 3, 5, 7 …; both may
call. A message whose id is in flight here is an answer; another one with ``do`` is a
call, and without ``do`` it is a late answer, which is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from trio_supervisor.errors import (
    CallFailedError,
    LimitExceededError,
    LocalProtocolError,
    RemoteProtocolError,
    SupervisorError,
    UnavailableError,
)
from trio_supervisor.wire.brief import brief
from trio_supervisor.wire.envelope import (
    ENVELOPE,
    MAX_ID,
    check_names,
    failure,
    read_failure,
    read_flag,
    read_head,
    split_answer,
)
from trio_supervisor.wire.framing import LineBuffer
from trio_supervisor.wire.json_tree import (
    JsonLines,
    Object,
    has_more_containers,
    is_deeper,
)
from trio_supervisor.wire.limits import DEFAULT_LIMITS, Limits
from trio_supervisor.wire.trace_context import FIELD as TRACE_FIELD

_OF_CALLS: Final = frozenset({"id", "do", TRACE_FIELD})
"""Fields of a call that are not arguments."""


class Unparsed(dict[str, Any]):
    """The unparsed fields of a large answer, to pass on; an empty dictionary."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body
        """The members of the object, without its braces and without the envelope."""


class CallReceived(NamedTuple):
    """The peer made a call, to be answered by `Session.answer` or `Session.fail`."""

    id: int
    do: str
    arguments: Object
    traceparent: str = ""
    """The trace that it belongs to, unchecked; empty: none."""


class AnswerReceived(NamedTuple):
    """The peer answered a call of this side; each call has exactly one last answer."""

    id: int
    fields: Object
    is_last: bool
    error: CallFailedError | None


class CallRefused(NamedTuple):
    """The peer made a call that is not run but answered with *reply*."""

    reply: bytes


Event: TypeAlias = CallReceived | AnswerReceived | CallRefused


class Session:
    """One side of one connection.

    Args:
        is_connecting: Whether this side connected, rather than accepted.
        limits: Limits for what the peer sends.
        json: Reads and writes lines; by default `json_line`.
        parses_large: Whether to parse answers that are larger than a call may be;
            otherwise their fields are `Unparsed`.
    """

    __slots__ = (
        "_forgotten",
        "_incoming",
        "_json",
        "_lines",
        "_longest_call",
        "_next_id",
        "_outgoing",
        "_overlong",
        "_parses_large",
        "limits",
    )

    def __init__(
        self,
        *,
        is_connecting: bool,
        limits: Limits = DEFAULT_LIMITS,
        json: JsonLines | None = None,
        parses_large: bool = True,
    ) -> None:
        self.limits = limits
        if json is None:
            # Imported late: short commands use `json_plain`.
            from trio_supervisor.wire import json_line

            json = json_line
        self._json: JsonLines = json
        self._parses_large = parses_large
        self._longest_call = min(limits.call, limits.line)
        self._lines = LineBuffer(
            limits.line,
            limits.skipped,
            self._receive_overlong,
            self._longest_call,
            self._is_expected,
        )
        self._overlong: list[Event] = []
        self._next_id = 2 if is_connecting else 3
        self._outgoing: set[int] = set()
        # Calls that were given up: the peer still runs them, so they count as well.
        self._forgotten: set[int] = set()
        self._incoming: set[int] = set()

    @property
    def calls_in_flight(self) -> int:
        """Number of calls of this side that wait for their last answer."""
        return len(self._outgoing)

    def call(
        self, do: str, arguments: Mapping[str, object], traceparent: str = ""
    ) -> tuple[int, bytes]:
        """Begin a call; return its id and the line to send.

        Args:
            traceparent: The trace that it belongs to; empty: none.

        Raises:
            LocalProtocolError: *arguments* has a field of the envelope or a value
                without JSON equivalent, or is too long for a line; or no id is left.
            UnavailableError: as many calls are in flight as the peer accepts,
                including those that were given up.
        """
        if self._is_full(len(self._outgoing) + len(self._forgotten), do):
            raise UnavailableError(
                f"{self.limits.calls} calls are already in flight (limit: calls)"
            )
        check_names(arguments)
        if TRACE_FIELD in arguments:
            raise LocalProtocolError(f"reserved name of an argument: {TRACE_FIELD}")
        while (
            self._next_id in self._incoming
        ):  # if the peer does not number its calls in order
            self._next_id += 2
        if self._next_id > MAX_ID:
            raise LocalProtocolError("no call ids are left; connect again")
        trace = {TRACE_FIELD: traceparent} if traceparent else {}
        line = self._encode({"id": self._next_id, "do": do, **trace, **arguments})
        self._check_call(do, line)
        id_ = self._next_id
        self._next_id += 2
        self._outgoing.add(id_)
        return id_, line

    def forget(self, id_: int) -> None:
        """Give up call *id_*: drop its answers from now on."""
        if id_ in self._outgoing:
            self._outgoing.discard(id_)
            self._forgotten.add(id_)

    def progress(self, id_: int, fields: Mapping[str, object]) -> bytes:
        """Return an intermediate answer to the peer's call *id_*.

        Raises:
            LocalProtocolError: as for `call`.
        """
        self._check_incoming(id_)
        if isinstance(fields, Unparsed):
            return self._splice(id_, fields, b"")
        check_names(fields)
        return self._encode({"id": id_, **fields})

    def answer(self, id_: int, fields: Mapping[str, object]) -> bytes:
        """Return the last answer to the peer's call *id_*.

        Raises:
            LocalProtocolError: as for `call`; the call still has to be answered.
        """
        self._check_incoming(id_)
        if isinstance(fields, Unparsed):
            line = self._splice(id_, fields, b',"finished":true')
        else:
            check_names(fields)
            line = self._encode({"id": id_, "finished": True, **fields})
        self._incoming.discard(id_)
        return line

    def fail(
        self,
        id_: int,
        error: SupervisorError,
        fields: Mapping[str, object] | None = None,
    ) -> bytes:
        """Return the last answer to the peer's call *id_*, which failed with *error*.

        Raises:
            LocalProtocolError: as for `call`; the call still has to be answered.
        """
        self._check_incoming(id_)
        check_names(fields or {})
        line = self._encode({"id": id_, **failure(error), **(fields or {})})
        self._incoming.discard(id_)
        return line

    def receive_data(self, data: bytes | bytearray) -> Iterator[Event]:
        """Yield the events that *data* completes. Exhaust it before the next call.

        Raises:
            RemoteProtocolError: the peer violated the protocol; raised after the
                events before that. The session is over.
        """
        try:
            for line in self._lines.receive_data(data):
                if self._overlong:
                    yield from self._take_overlong()
                if line and (event := self._receive_line(line)) is not None:
                    yield event
        except RemoteProtocolError:
            yield from self._take_overlong()
            raise
        if self._overlong:
            yield from self._take_overlong()

    def receive_eof(self) -> None:
        """Check that the stream may end here.

        Raises:
            RemoteProtocolError: it ends inside a line.
        """
        self._lines.receive_eof()

    def _take_overlong(self) -> list[Event]:
        events, self._overlong = self._overlong, []
        return events

    def _receive_overlong(self, line: bytes) -> None:
        """Fail only the call that a line past the limit belongs to.

        Raises:
            LimitExceededError: the beginning of the line does not name that call.
        """
        limit = self.limits.line if self._is_expected(line) else self._longest_call
        problem = f"longer than {limit} bytes"
        if (head := read_head(line)) is None:
            raise LimitExceededError(f"a line is {problem}")
        if head.id in self._outgoing:
            self._outgoing.discard(head.id)
            error = CallFailedError("LimitExceeded", f"the answer is {problem}")
            self._overlong.append(AnswerReceived(head.id, {}, True, error))
        elif head.id in self._forgotten:
            self._forgotten.discard(head.id)
        elif head.do is not None:
            problem = f"the call of {brief(head.do)} is {problem}"
            self._overlong.append(self._refuse(head.id, LimitExceededError(problem)))
        else:
            raise LimitExceededError(f"a line is {problem}")

    def _refuse(self, id_: int, error: SupervisorError) -> CallRefused:
        return CallRefused(self._json.encode_object({"id": id_, **failure(error)}))

    def _is_expected(self, line: bytes) -> bool:
        """Return whether *line* begins like an answer to a call of this side."""
        head = read_head(line)
        return head is not None and (
            head.id in self._outgoing or head.id in self._forgotten
        )

    def _receive_line(self, line: bytes) -> Event | None:
        is_large = self._is_large(line)
        if is_large and not (self._parses_large and self._is_expected(line)):
            return self._receive_large(line)
        try:
            return self._receive_tree(self._json.decode_object(line, self.limits.depth))
        except RemoteProtocolError as exc:
            if is_large and (event := self._receive_malformed(line, exc)) is not None:
                return event
            raise

    def _receive_tree(self, tree: Object) -> Event | None:
        id_ = tree.get("id")
        if id_ is None and tree.get("failed") is True:
            raise RemoteProtocolError(f"the peer hung up: {read_failure(tree)}")
        if type(id_) is not int or not 0 <= id_ <= MAX_ID:
            raise RemoteProtocolError(f"id: expected a call's number, got {brief(id_)}")
        if id_ in self._outgoing:
            return self._receive_answer(id_, tree)
        if "do" not in tree:
            if tree.get("finished") is True:
                self._forgotten.discard(id_)
            return None
        return self._receive_call(id_, tree)

    def _is_large(self, line: bytes) -> bool:
        """Return whether *line* is larger than a call may be."""
        return len(line) > self._longest_call or has_more_containers(
            line, self.limits.containers
        )

    def _receive_large(self, line: bytes) -> Event | None:
        """Receive a line without parsing it, which would block the event loop."""
        problem = f"larger than {self.limits.containers} arrays and objects"
        if (head := read_head(line)) is None:
            raise LimitExceededError(f"a line is {problem}")
        if not self._is_expected(line):
            if head.do is None:
                return None  # a late answer
            return self._refuse(head.id, LimitExceededError(f"the call is {problem}"))
        if (answer := split_answer(line)) is None:
            raise LimitExceededError("a large answer does not begin with its id")
        is_last, body = answer
        if head.id in self._forgotten:
            if is_last:
                self._forgotten.discard(head.id)
            return None
        if is_last:
            self._outgoing.discard(head.id)
        return AnswerReceived(head.id, Unparsed(body), is_last, None)

    def _receive_malformed(
        self, line: bytes, exc: RemoteProtocolError
    ) -> AnswerReceived | None:
        """Fail only the call that a line belongs to; None if it does not name one.

        A supervisor passes large answers on without parsing them: a worker that sends
        invalid JSON fails that one call, and the connection continues.
        """
        head = read_head(line)
        if head is None or head.id not in self._outgoing:
            return None
        self._outgoing.discard(head.id)
        self._forgotten.add(head.id)
        error = CallFailedError(exc.wire_name, f"the answer is malformed: {exc}")
        return AnswerReceived(head.id, {}, True, error)

    def _splice(self, id_: int, fields: Unparsed, end: bytes) -> bytes:
        head, body = b'"id":%d%s' % (id_, end), fields.body
        # Of fields with the same name the last one counts. Repeat the envelope, so that
        # the answer of one worker cannot pass as that of another.
        again = b'"id"' in body or b'"finished"' in body or b"\\u00" in body
        line = b"{%s,%s%s}\n" % (head, body, b"," + head if again else b"")
        if not self._is_large(line[:-1]):
            # It was large by its whitespace. As a short one that is malformed it would
            # end the connection to the caller.
            try:
                tree = self._json.decode_object(line[:-1], self.limits.depth)
                read_flag(tree, "finished")
                read_flag(tree, "failed")
            except RemoteProtocolError as exc:
                raise LocalProtocolError(f"malformed: {exc}") from exc
        return self._checked(line)

    def _checked(self, line: bytes) -> bytes:
        if len(line) - 1 > self.limits.line:
            raise LocalProtocolError(
                f"a message of {len(line)} bytes is longer than the protocol's "
                f"{self.limits.line}"
            )
        return line

    def _check_call(self, do: str, line: bytes) -> None:
        if len(line) - 1 > self._longest_call:
            raise LocalProtocolError(
                f"the call of {brief(do)} has {len(line)} bytes; at most "
                f"{self._longest_call} are accepted"
            )
        if has_more_containers(line, self.limits.containers):
            raise LocalProtocolError(
                f"the call of {brief(do)} has more than {self.limits.containers} "
                f"arrays and objects"
            )

    def _receive_answer(self, id_: int, tree: Object) -> AnswerReceived:
        is_last = read_flag(tree, "finished")
        error = read_failure(tree) if read_flag(tree, "failed") else None
        if is_last:
            self._outgoing.discard(id_)
        fields = {k: v for k, v in tree.items() if k not in ENVELOPE}
        return AnswerReceived(id_, fields, is_last, error if is_last else None)

    def _receive_call(self, id_: int, tree: Object) -> Event:
        do = tree["do"]
        if type(do) is not str:
            raise RemoteProtocolError(f"do: expected a name, got {brief(do)}")
        if id_ in self._incoming:
            problem = f"call {id_} is in flight: its id cannot be used again yet"
            return self._refuse(id_, RemoteProtocolError(problem))
        if self._is_full(len(self._incoming), do):
            raise LimitExceededError(f"more than {self.limits.calls} calls in flight")
        self._incoming.add(id_)
        arguments = {k: v for k, v in tree.items() if k not in _OF_CALLS}
        traceparent = tree.get(TRACE_FIELD, "")
        if type(traceparent) is not str:
            traceparent = ""  # tracing must not make a call fail
        return CallReceived(id_, do, arguments, traceparent)

    def _is_full(self, in_flight: int, do: str) -> bool:
        # Reserve room for a cancel of each call, or a full connection would stay full.
        return in_flight >= self.limits.calls * (2 if do == "cancel" else 1)

    def _check_incoming(self, id_: int) -> None:
        if id_ not in self._incoming:
            raise LocalProtocolError(f"call {id_} is not in flight")

    def _encode(self, tree: Mapping[str, object]) -> bytes:
        line = self._checked(self._json.encode_object(tree))
        if is_deeper(line, self.limits.depth):
            raise LocalProtocolError(
                f"a message is nested deeper than the protocol's {self.limits.depth}"
            )
        return line
