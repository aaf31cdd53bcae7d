"""Collect stack dumps before a stop and post-mortems after an exit."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import trio
from attrs import define, field

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import ExitReport
from trio_supervisor.controller.events import Event, StacksDumped
from trio_supervisor.controller.post_mortem.kills import Kills
from trio_supervisor.controller.post_mortem.store import PostMortemStore
from trio_supervisor.errors import (
    CallFailedError,
    ConnectionLostError,
    UnavailableError,
)
from trio_supervisor.policy.crash_text import last_output_line
from trio_supervisor.policy.port_conflict import wanted_ports
from trio_supervisor.policy.restart import Ending
from trio_supervisor.process.child import Process, describe_exit
from trio_supervisor.process.groups import read_stat
from trio_supervisor.process.inspection.black_box import BlackBox
from trio_supervisor.process.inspection.inspection import FROZEN, inspect_process
from trio_supervisor.process.output.hub import ChildOutput
from trio_supervisor.process.output.tail import OutputLine
from trio_supervisor.process.sockets.listeners import (
    ListeningProcess,
    find_listening_process,
)
from trio_supervisor.process.threads import run_in_thread
from trio_supervisor.tasks import ProtectedNursery, open_nursery
from trio_supervisor.wire.json_tree import Object

# Number of last output lines of an exited process in the event, and in the
# post-mortem file.
_IN_EVENT: Final = 10
_IN_FILE: Final = 200
# Lines read this shortly before the last one belong to the same message [s].
_TOGETHER: Final = 0.2
# Number of last lines searched for an "address in use" error.
_SEARCHED: Final = 20
# Longest delay of a restart by the search for the process holding a port [s].
_SEARCH_WITHIN: Final = 0.5
# Number of exited processes kept: clients ask about an exit within seconds.
_REMEMBERED: Final = 100
# Timeout of the agent; a responsive one answers much sooner [s].
_AGENT_WITHIN: Final = 1.0


class Witness(Protocol):
    """Link through which a worker can be queried."""

    async def ask(self, do: str, arguments: Object) -> Object:
        """Call the supervisor."""
        ...


@define(eq=False)
class PostMortemCollector:
    """Collector of what is known about the exit of each process."""

    _store: PostMortemStore | None
    _witness: Callable[[], Witness]
    on_event: Callable[[Event], None]
    _nursery: Callable[[], ProtectedNursery]
    boxes: dict[int, BlackBox] = field(factory=dict)
    """Black boxes, by process id."""
    kills: Kills = field(factory=Kills)
    _evidence: dict[int, list[StacksDumped]] = field(factory=dict, init=False)
    _remains: dict[Child, dict[str, Any]] = field(factory=dict, init=False)
    """Evidence found at exit, until the exit report is made."""
    _ended: dict[int, Object] = field(factory=dict, init=False)
    """Reports of recently exited processes, by process id."""
    _news: trio.Event = field(factory=trio.Event, init=False)

    async def dump_stacks(self, child: Child, process: Process, cause: str) -> None:
        """Save the stacks of threads and tasks of *process*, and report an event."""
        if stacks := await self.stacks_of(child, process):
            event = StacksDumped(
                name=child.name,
                process_id=process.pid,
                cause=cause,
                stacks=stacks,
                is_repeat=child.is_repeating,
            )
            self._evidence.setdefault(process.pid, []).append(event)
            self.on_event(event)

    async def stacks_of(self, child: Child, process: Process) -> str:
        """Return the stacks of the threads and tasks of *process* as text.

        If no agent answers, return the result of `look_from_outside`.
        """
        can_answer = child.plan.connects and _frozen_state(process) is None
        if can_answer and (text := await self._ask_agent(child)):
            return text
        _, text = await self.look_from_outside(process)
        return text

    async def look_from_outside(self, process: Process) -> tuple[str, str]:
        """Return the stacks of its threads without running Python code in it.

        The first item is the method (`inspection.Inspection.way`); both are empty if
        nothing is known.
        """
        box = self.boxes.get(process.pid)
        if process.returncode is not None:
            await trio.lowlevel.checkpoint()
            return "", ""
        seen = await inspect_process(process.pid, box)
        return seen.way, seen.text

    async def _ask_agent(self, child: Child) -> str:
        """Return the stacks of threads, then tasks, that its agent reports in time."""
        answers: dict[str, Object] = {}

        async def ask(do: str) -> None:
            forward = {"name": child.name, "operation": {"do": do}}
            with suppress(UnavailableError, CallFailedError, ConnectionLostError):
                answers[do] = await self._witness().ask("forward", forward)

        with trio.move_on_after(_AGENT_WITHIN):
            async with open_nursery() as nursery:
                nursery.start_soon(ask, "thread_dump")
                nursery.start_soon(ask, "scheduler_dump")
        texts = []
        if threads := answers.get("thread_dump"):
            texts.append(_without_agent(str(threads.get("data", ""))))
        tasks = answers.get("scheduler_dump", {})
        if tasks.get("loops"):  # plain code has no tasks
            texts.append(f"Tasks:\n{tasks.get('data', '')}")
        return "\n\n".join(text.strip("\n") for text in texts)

    def examine(
        self, child: Child, process: Process, output: ChildOutput | None
    ) -> None:
        """Collect the evidence of a process that has exited."""
        remains: dict[str, Any] = {"process_id": process.pid}
        if output is not None:
            output.finish()
            lines = output.last_lines(_IN_FILE)
            remains["last_lines"] = [line.text for line in lines]
            remains["last_line"] = _last_line(lines)
        if (box := self.boxes.pop(process.pid, None)) is not None:
            with box:
                is_signalled = (process.returncode or 0) < 0
                remains["fault"] = box.read() if is_signalled else ""
        remains["evidence"] = self._evidence.pop(process.pid, [])
        self._remains[child] = remains

    async def explain_kill(self, child: Child, process: Process) -> str:
        """Return who sent the SIGKILL that ended *process*; empty: it exited otherwise.

        The controller did not send it.
        """
        if process.returncode != -signal.SIGKILL:
            return ""
        reason = await self.kills.explain(process.pid)
        self._remains.setdefault(child, {})["kill_reason"] = reason
        return reason

    async def find_cause(
        self, child: Child, arguments: Sequence[str], names: Mapping[int, str]
    ) -> None:
        """Report the process that holds the port that *child* failed to bind, if any.

        Args:
            arguments: Command line of the exited program.
            names: Names of this application's processes, by process id.
        """
        remains = self._remains.get(child, {})
        lines = remains.get("last_lines", [])[-_SEARCHED:]
        if ports := wanted_ports(lines, arguments):
            child.mark_stopping()
            with trio.move_on_after(_SEARCH_WITHIN):
                found = await run_in_thread(
                    find_listening_process, ports, set(names), abandon_on_cancel=True
                )
                if found is not None:
                    remains["problem"] = _gate(found, names)

    async def ending_of(self, process_id: int) -> Object:
        """Wait until a process has exited; return what is known about the exit."""
        await trio.lowlevel.checkpoint()
        while process_id not in self._ended:
            await self._news.wait()
        return self._ended[process_id]

    def _remember(self, process_id: int, known: Object) -> None:
        self._ended.pop(process_id, None)
        self._ended[process_id] = known
        while len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]
        self._news.set()
        self._news = trio.Event()

    def last_line_of(self, child: Child) -> str:
        """Return the line that most likely states why its last process exited."""
        return str(self._remains.get(child, {}).get("last_line", ""))

    def exit_report_of(self, child: Child, ending: Ending) -> ExitReport:
        """Return the exit report, and save the post-mortem."""
        remains = self._remains.pop(child, {})
        self.kills.forget(remains.get("process_id", 0))
        kill_reason = remains.get("kill_reason", "")
        lines: list[str] = remains.get("last_lines", [])
        evidence: list[StacksDumped] = remains.get("evidence", [])
        path = ""
        if ending.is_failure or evidence:
            path = self._save(child, ending, remains)
        known = {
            "exit": describe_exit(ending.returncode, kill_reason),
            "cause": ending.cause.value,
            "is_planned": ending.is_planned,
            "last_lines": lines[-_IN_EVENT:],
            "stacks": remains.get("fault", "") or "".join(e.stacks for e in evidence),
            "problem": remains.get("problem", ""),
            "post_mortem": path,
        }
        self._remember(remains.get("process_id", 0), known)
        return ExitReport(
            last_lines=tuple(lines[-_IN_EVENT:]),
            last_line=remains.get("last_line", ""),
            post_mortem=path,
            problem=remains.get("problem", ""),
            kill_reason=kill_reason,
        )

    def _save(self, child: Child, ending: Ending, remains: dict[str, Any]) -> str:
        """Save the post-mortem of *child*; return its path, empty: none is kept."""
        if self._store is None:
            return ""
        path = self._store.path_for(child.name, remains.get("process_id", 0))
        evidence: list[StacksDumped] = remains.get("evidence", [])
        record = {
            "time": datetime.fromtimestamp(time.time(), UTC).isoformat(),
            "name": child.name,
            "process_id": remains.get("process_id"),
            "incarnation": child.incarnation,
            "generation": child.plan.generation,
            "cause": ending.cause.value,
            "returncode": ending.returncode,
            "exit": describe_exit(ending.returncode, remains.get("kill_reason", "")),
            "ready_for": ending.ready_for,
            "status": child.status,
            "evidence": [{"cause": e.cause, "stacks": e.stacks} for e in evidence],
            "fault": remains.get("fault", ""),
            "last_lines": remains.get("last_lines", []),
            "last_line": remains.get("last_line", ""),
            "problem": remains.get("problem", ""),
        }
        self._nursery().start_soon(self._store.save, path, record)
        return path


def _gate(found: ListeningProcess, names: Mapping[int, str]) -> str:
    if found.process_id is None:
        return f"port {found.port} is in use by a process of user {found.name}"
    name = names.get(found.process_id) or names.get(found.group) or found.name
    return f"port {found.port} is in use by {name} (pid {found.process_id})"


def _last_line(lines: Sequence[OutputLine]) -> str:
    """Return the last of *lines*, from standard error if it was written to last.

    The order of writes to two streams is unknown; the read times approximate it.
    """
    newest = max((line.time for line in lines), default=0.0)
    errors = [
        line.text
        for line in lines
        if line.stream == "stderr" and newest - line.time < _TOGETHER
    ]
    return last_output_line(errors) or last_output_line([line.text for line in lines])


def _frozen_state(process: Process) -> str | None:
    """Return why no thread of *process* can run; None: it can."""
    stat = read_stat(process.pid)
    return None if stat is None else FROZEN.get(stat[0])


def _without_agent(text: str) -> str:
    """Return a thread dump without the thread that took it."""
    parts = text.split("\nThread ")
    kept = [part for part in parts if "trio_supervisor agent" not in part[:80]]
    return "\nThread ".join(kept)
