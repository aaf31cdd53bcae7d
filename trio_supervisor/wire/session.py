"""Calls and answers over one connection, as a state machine without I/O.

The connecting side numbers its calls 2, 4, 6 …, the accepting side 3, 5, 7 …; both may
call. What comes in under an id that is in flight here is an answer; under another id
with ``do`` it is a call; without ``do`` it is a late answer and is dropped.
"""

from __future__ import annotations

import re
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
from trio_supervisor.wire.brief import brief, cut
from trio_supervisor.wire.framing import LineBuffer
from trio_supervisor.wire.json_tree import (
    JsonLines,
    Object,
    has_more_containers,
    is_deeper,
)
from trio_supervisor.wire.limits import DEFAULT_LIMITS, MAX_NAME, Limits

# What fits a signed 64-bit integer, which is what peers in other languages have.
MAX_ID = 2**63 - 1
# How a message begins, as all known peers write it.
_HEAD: Final = re.compile(
    rb'\s*\{\s*"id"\s*:\s*(0|[1-9][0-9]{0,18})\s*,'
    rb'(?:\s*"do"\s*:\s*"([^"\\]{1,80})")?'
)
_LARGE: Final = re.compile(
    rb'\s*\{\s*"id"\s*:\s*(0|[1-9][0-9]{0,18})\s*,'
    rb'(?:\s*"finished"\s*:\s*(true|false)\s*,)?(?!\s*"do"\s*:)'
)
_ENVELOPE = frozenset({"id", "do", "finished", "failed", "error"})


class Unparsed(dict[str, Any]):
    """The fields of a large answer, as they came: for passing on, not for reading.

    As a dictionary it is empty.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body
        """The members of the object, without its braces and without the envelope."""


class CallReceived(NamedTuple):
    """The peer calls; `Session.answer` or `Session.fail` is due."""

    id: int
    do: str
    arguments: Object


class AnswerReceived(NamedTuple):
    """The peer answered one of our calls; exactly one answer of a call is the last."""

    id: int
    fields: Object
    is_last: bool
    error: CallFailedError | None


class CallRefused(NamedTuple):
    """The peer called in a way that is answered at once with *reply*, and not run."""

    reply: bytes


Event: TypeAlias = CallReceived | AnswerReceived | CallRefused


class Session:
    """One side of one connection.

    Args:
        is_connecting: Whether this side connected, rather than accepted.
        limits: What the peer may ask of this side.
        json: What reads and writes lines; `json_line` if none is given.
        parses_large: Whether answers are parsed that are larger than a call may be;
            else their fields are `Unparsed`.
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
            # Only now: a short command does without it.
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
        # The peer still runs these: they count against what it may bear.
        self._forgotten: set[int] = set()
        self._incoming: set[int] = set()

    @property
    def calls_in_flight(self) -> int:
        """How many calls of this side wait for their last answer."""
        return len(self._outgoing)

    def call(self, do: str, arguments: Mapping[str, object]) -> tuple[int, bytes]:
        """Begin a call; return its id and the line to send.

        Raises:
            LocalProtocolError: *arguments* have a field of the envelope, a value that
                JSON has not, or more than a line holds; or no id is left.
            UnavailableError: as many calls are in flight as the peer may bear, those
                given up included.
        """
        if self._is_full(len(self._outgoing) + len(self._forgotten), do):
            raise UnavailableError(f"{self.limits.calls} calls are in flight already")
        _check_names(arguments)
        while self._next_id in self._incoming:  # a peer that counts wrongly
            self._next_id += 2
        if self._next_id > MAX_ID:
            raise LocalProtocolError("no call ids are left: connect again")
        line = self._encode({"id": self._next_id, "do": do, **arguments})
        self._check_call(do, line)
        id_ = self._next_id
        self._next_id += 2
        self._outgoing.add(id_)
        return id_, line

    def forget(self, id_: int) -> None:
        """Give up call *id_*: its answers are late ones from now on."""
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
        _check_names(fields)
        return self._encode({"id": id_, **fields})

    def answer(self, id_: int, fields: Mapping[str, object]) -> bytes:
        """Return the last answer to the peer's call *id_*.

        Raises:
            LocalProtocolError: as for `call`; the call is still to be answered.
        """
        self._check_incoming(id_)
        if isinstance(fields, Unparsed):
            line = self._splice(id_, fields, b',"finished":true')
        else:
            _check_names(fields)
            line = self._encode({"id": id_, "finished": True, **fields})
        self._incoming.discard(id_)
        return line

    def fail(
        self,
        id_: int,
        error: SupervisorError,
        fields: Mapping[str, object] | None = None,
    ) -> bytes:
        """Return a last answer that says that the peer's call *id_* failed.

        Raises:
            LocalProtocolError: as for `call`; the call is still to be answered.
        """
        self._check_incoming(id_)
        _check_names(fields or {})
        line = self._encode({"id": id_, **failure(error), **(fields or {})})
        self._incoming.discard(id_)
        return line

    def receive_data(self, data: bytes | bytearray) -> Iterator[Event]:
        """Yield what *data* completes. To be exhausted before the next call.

        Raises:
            RemoteProtocolError: the peer broke the protocol, after all that was good.
                The session is over.
        """
        for line in self._lines.receive_data(data):
            if self._overlong:
                yield from self._take_overlong()
            if line and (event := self._receive_line(line)) is not None:
                yield event
        if self._overlong:
            yield from self._take_overlong()

    def receive_eof(self) -> None:
        """Say that the stream ended.

        Raises:
            RemoteProtocolError: it ended inside a line.
        """
        self._lines.receive_eof()

    def _take_overlong(self) -> list[Event]:
        events, self._overlong = self._overlong, []
        return events

    def _receive_overlong(self, head: bytes) -> None:
        """Fail the one call that a line past the limit belongs to.

        Raises:
            LimitExceededError: it does not tell in time which call that is.
        """
        limit = self.limits.line if self._is_expected(head) else self._longest_call
        problem = f"longer than {limit} bytes"
        found = _HEAD.match(head)
        if found is None or (id_ := int(found[1])) > MAX_ID:
            raise LimitExceededError(f"a line is {problem}")
        if id_ in self._outgoing:
            self._outgoing.discard(id_)
            error = CallFailedError("LimitExceeded", f"the answer is {problem}")
            self._overlong.append(AnswerReceived(id_, {}, True, error))
        elif id_ in self._forgotten:
            self._forgotten.discard(id_)
        elif found[2] is not None:
            name = found[2].decode("utf-8", "replace")
            refusal = LimitExceededError(f"the call of {brief(name)} is {problem}")
            reply = {"id": id_, **failure(refusal)}
            self._overlong.append(CallRefused(self._json.encode_object(reply)))
        else:
            raise LimitExceededError(f"a line is {problem}")

    def _is_expected(self, head: bytes) -> bool:
        """Whether a line that begins so is an answer to a call of this side."""
        found = _HEAD.match(head)
        return found is not None and (
            (id_ := int(found[1])) in self._outgoing or id_ in self._forgotten
        )

    def _receive_line(self, line: bytes) -> Event | None:
        is_large = len(line) > self._longest_call or has_more_containers(
            line, self.limits.containers
        )
        if is_large and not (self._parses_large and self._is_expected(line)):
            return self._receive_large(line)
        try:
            tree = self._json.decode_object(line, self.limits.depth)
        except RemoteProtocolError as exc:
            if is_large and (event := self._receive_malformed(line, exc)) is not None:
                return event
            raise
        id_ = tree.get("id")
        if id_ is None and tree.get("failed") is True:
            raise RemoteProtocolError(f"the peer hung up: {_failure_of(tree)}")
        if type(id_) is not int or not 0 <= id_ <= MAX_ID:
            raise RemoteProtocolError(f"id: expected a call's number, got {brief(id_)}")
        if id_ in self._outgoing:
            return self._receive_answer(id_, tree)
        if "do" not in tree:
            if tree.get("finished") is True:
                self._forgotten.discard(id_)
            return None
        return self._receive_call(id_, tree)

    def _receive_large(self, line: bytes) -> Event | None:
        """Take a line that would keep everybody waiting if it were parsed here."""
        problem = f"larger than {self.limits.containers} arrays and objects"
        found = _HEAD.match(line)
        if found is None or (id_ := int(found[1])) > MAX_ID:
            raise LimitExceededError(f"a line is {problem}")
        if not self._is_expected(line):
            if found[2] is None:
                return None  # a late answer
            refusal = LimitExceededError(f"the call is {problem}")
            reply = {"id": id_, **failure(refusal)}
            return CallRefused(self._json.encode_object(reply))
        if (large := _LARGE.match(line)) is None or not line.rstrip().endswith(b"}"):
            raise LimitExceededError("a large answer does not begin with its id")
        is_last = large[2] == b"true"
        if id_ in self._forgotten:
            if is_last:
                self._forgotten.discard(id_)
            return None
        if is_last:
            self._outgoing.discard(id_)
        fields = Unparsed(line[large.end() :].rstrip()[:-1])
        return AnswerReceived(id_, fields, is_last, None)

    def _receive_malformed(
        self, line: bytes, exc: RemoteProtocolError
    ) -> AnswerReceived | None:
        """Fail the one call that a line belongs to; None: it does not tell which.

        A supervisor passes large answers on without reading them: a worker that writes
        nonsense costs the caller that one call, and not the connection.
        """
        found = _HEAD.match(line)
        if found is None or (id_ := int(found[1])) not in self._outgoing:
            return None
        self._outgoing.discard(id_)
        self._forgotten.add(id_)
        error = CallFailedError(exc.wire_name, f"the answer is malformed: {exc}")
        return AnswerReceived(id_, {}, True, error)

    def _splice(self, id_: int, fields: Unparsed, end: bytes) -> bytes:
        head, body = b'"id":%d%s' % (id_, end), fields.body
        # Of fields with the same name the last one counts: the answer of one worker
        # is not to pass for that of another.
        again = b'"id"' in body or b'"finished"' in body or b"\\u00" in body
        line = b"{%s,%s%s}\n" % (head, body, b"," + head if again else b"")
        if len(line) - 1 > self.limits.line:
            raise LocalProtocolError(
                f"a message of {len(line)} bytes is longer than the protocol's "
                f"{self.limits.line}"
            )
        return line

    def _check_call(self, do: str, line: bytes) -> None:
        if len(line) - 1 > self._longest_call:
            raise LocalProtocolError(
                f"the call of {brief(do)} has {len(line)} bytes; a call has at most "
                f"{self._longest_call}"
            )
        if has_more_containers(line, self.limits.containers):
            raise LocalProtocolError(
                f"the call of {brief(do)} has more than {self.limits.containers} "
                f"arrays and objects"
            )

    def _receive_answer(self, id_: int, tree: Object) -> AnswerReceived:
        is_last = _flag(tree, "finished")
        error = _failure_of(tree) if _flag(tree, "failed") else None
        if is_last:
            self._outgoing.discard(id_)
        fields = {k: v for k, v in tree.items() if k not in _ENVELOPE}
        return AnswerReceived(id_, fields, is_last, error if is_last else None)

    def _receive_call(self, id_: int, tree: Object) -> Event:
        do = tree["do"]
        if type(do) is not str:
            raise RemoteProtocolError(f"do: expected a name, got {brief(do)}")
        if id_ in self._incoming:
            problem = f"call {id_} is in flight: its id cannot be used again yet"
            reply = {"id": id_, **failure(RemoteProtocolError(problem))}
            return CallRefused(self._json.encode_object(reply))
        if self._is_full(len(self._incoming), do):
            raise LimitExceededError(f"more than {self.limits.calls} calls in flight")
        self._incoming.add(id_)
        arguments = {k: v for k, v in tree.items() if k not in ("id", "do")}
        return CallReceived(id_, do, arguments)

    def _is_full(self, in_flight: int, do: str) -> bool:
        # There is room for a cancel of each call, or a full connection stays full.
        return in_flight >= self.limits.calls * (2 if do == "cancel" else 1)

    def _check_incoming(self, id_: int) -> None:
        if id_ not in self._incoming:
            raise LocalProtocolError(f"call {id_} is not in flight")

    def _encode(self, tree: Mapping[str, object]) -> bytes:
        line = self._json.encode_object(tree)
        if len(line) - 1 > self.limits.line:
            raise LocalProtocolError(
                f"a message of {len(line)} bytes is longer than the protocol's "
                f"{self.limits.line}"
            )
        if is_deeper(line, self.limits.depth):
            raise LocalProtocolError(
                f"a message is nested deeper than the protocol's {self.limits.depth}"
            )
        return line


class PlainFailure(SupervisorError):  # noqa: N818 (a form on the wire, not an error)
    """A failure in the form of Ruby's server: a text, with fields beside it."""

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message)
        self.fields = fields


def failure(error: SupervisorError) -> Object:
    """Return the fields that say *error*, without an id."""
    if isinstance(error, PlainFailure):
        plain = {"finished": True, "failed": True, "error": str(error)}
        return {**plain, **error.fields}
    message = error.message if isinstance(error, CallFailedError) else str(error)
    return {
        "finished": True,
        "failed": True,
        "error": {"class": error.wire_name, "message": message},
    }


def _check_names(fields: Mapping[str, object]) -> None:
    if not _ENVELOPE.isdisjoint(fields):
        names = ", ".join(sorted(_ENVELOPE.intersection(fields)))
        raise LocalProtocolError(f"not the name of an argument or result: {names}")


def _flag(tree: Object, name: str) -> bool:
    value = tree.get(name, False)
    if type(value) is not bool:
        raise RemoteProtocolError(f"{name}: expected true or false, got {brief(value)}")
    return value


def _failure_of(tree: Object) -> CallFailedError:
    """Return the error in a failed answer: an object, or a plain string (Ruby)."""
    match tree.get("error"):
        case {"class": str(name), "message": str(message)}:
            return CallFailedError(name[:MAX_NAME], cut(message))
        case {"message": str(message), **others} if others.get("class") is None:
            return CallFailedError("", cut(message))
        case {"class": str(name)}:
            return CallFailedError(name[:MAX_NAME], "the peer gave no reason")
        case str(message):
            return CallFailedError("", cut(message))
        case error:
            return CallFailedError("", f"the peer gave no reason: {brief(error)}")
