"""Workers as ``top`` reads them, and an application that is none."""

from __future__ import annotations

import threading
from typing import Any

from attrs import define, field

from trio_supervisor.cli.top.rows import TopSnapshot
from trio_supervisor.errors import SupervisorError


def top_worker(name: str, **fields: Any) -> dict[str, Any]:
    """Return the fields of a worker that is ready."""
    service, _, index = name.rpartition(".")
    return {
        "name": name,
        "service": service,
        "process_id": 100 + int(index),
        "state": "ready",
        "uptime": 61.0,
        "restarts": 0,
        "status": "",
        "is_managed": True,
        "last_exit": "",
        "generation": 1,
        "connection_id": None,
        "usage": None,
        **fields,
    }


def top_snapshot(*workers: dict[str, Any], **fields: Any) -> TopSnapshot:
    """Return a snapshot with these workers."""
    return TopSnapshot("supervisor pid 1", list(workers), **fields)


@define
class FakeVerb:
    """A verb that prints *output* as soon as *may_exit* is set."""

    code: int
    output: str
    may_exit: threading.Event = field(factory=threading.Event)
    is_killed: bool = False

    def wait(self) -> tuple[int, str]:
        """Return the exit code and the output."""
        self.may_exit.wait(60)
        return self.code, self.output

    def kill(self) -> None:
        """End it."""
        self.is_killed = True
        self.may_exit.set()


@define
class FakeTopClient:
    """Answers with *answer*, and records the verbs that were started."""

    answer: TopSnapshot | SupervisorError
    code: int = 0
    output: str = "done"
    is_slow: bool = False
    """Whether verbs exit only when they are killed."""
    started: list[tuple[str, ...]] = field(factory=list)
    verbs: list[FakeVerb] = field(factory=list)

    def read(self) -> TopSnapshot:
        """Return the answer, or raise it."""
        if isinstance(self.answer, SupervisorError):
            raise self.answer
        return self.answer

    def start(self, words: tuple[str, ...]) -> FakeVerb:
        """Start a verb."""
        self.started.append(words)
        verb = FakeVerb(self.code, self.output)
        if not self.is_slow:
            verb.may_exit.set()
        self.verbs.append(verb)
        return verb
