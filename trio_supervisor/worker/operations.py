"""What a worker answers."""

from __future__ import annotations

from trio_supervisor.errors import UnknownOperationError
from trio_supervisor.link.peer import Answer, IncomingCall
from trio_supervisor.probe.stacks import thread_report
from trio_supervisor.wire.codec import parse_operation, to_fields
from trio_supervisor.wire.messages import Ping, ThreadDump


def dispatch(call: IncomingCall) -> Answer:
    """Answer *call*, in the agent's thread."""
    match parse_operation(call.do, call.arguments):
        case Ping():
            return {}
        case ThreadDump():
            return to_fields(thread_report())
    raise UnknownOperationError(f"a worker does not answer {call.do!r:.80}")
