"""Interrupt a block of ours at a schedule point, and check what it leaves behind.

``python -m tests.kits.interruptions controller cancel 1 17 300`` runs the block once
for each of these points, ``all`` for every point, ``:40`` for forty that are spread
over a whole run. A schedule point is a step of any task. It prints a line for each
run, and exits with 1 if one left anything behind or took too long.
"""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import trio
from attrs import define, field, frozen

from tests.kits.embedded_application import application
from tests.kits.embedded_targets import work
from tests.kits.serving import ISSUE_SERVICE, open_serving, short_directory
from trio_supervisor import (
    Application,
    Command,
    Service,
    open_client,
    open_controller,
    supervised_worker,
)
from trio_supervisor.process.kernel import child_pids, is_subreaper

# Longer than any stop timeout below, even on a slow machine [s].
_TOO_LONG = 30.0


@define(eq=False)
class Breaker(trio.abc.Instrument):
    """A trio instrument that counts the steps of all tasks and acts at one of them."""

    at: int
    act: Callable[[], None]
    count: int = field(default=0, init=False)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count a step."""
        self.count += 1
        if self.count == self.at:
            self.act()


@frozen
class Leftovers:
    """Everything that a block may leave behind."""

    children: frozenset[int]
    marked: frozenset[int]
    """Processes that this program started, by a mark in their environment."""
    descriptors: frozenset[str]
    threads: frozenset[str]
    files: frozenset[str]
    is_subreaper: bool

    @classmethod
    def current(cls, *directories: str) -> Leftovers:
        """Return the current state."""
        return cls(
            frozenset(child_pids()),
            frozenset(_marked()),
            frozenset(_descriptors()),
            frozenset(_threads()),
            frozenset(name for where in directories for name in os.listdir(where)),
            is_subreaper(),
        )

    def new_since(self, before: Leftovers) -> list[str]:
        """Return what did not exist *before*, as text."""
        news = [
            f"{what}: {sorted(getattr(self, what) - getattr(before, what))}"
            for what in ("children", "marked", "descriptors", "threads", "files")
            if getattr(self, what) - getattr(before, what)
        ]
        if self.is_subreaper and not before.is_subreaper:
            news.append("still a subreaper")
        return news


def _marked() -> Iterator[int]:
    mark = f"TMPDIR={tempfile.gettempdir()}".encode()
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            try:
                environment = Path(f"/proc/{name}/environ").read_bytes()
            except OSError:
                continue
            if mark in environment.split(b"\0"):
                yield int(name)


def _descriptors() -> Iterator[str]:
    for name in os.listdir("/proc/self/fd"):
        try:
            yield f"{name} {os.readlink(f'/proc/self/fd/{name}')}"
        except OSError:
            continue  # the descriptor that lists them


def _threads() -> Iterator[str]:
    for thread in threading.enumerate():
        # Trio keeps idle threads for ten seconds.
        if not thread.name.startswith("Trio thread"):
            yield f"{thread.name} {thread.ident}"


@define(eq=False)
class Run:
    """One run of a block that is interrupted at one point."""

    subject: Callable[[Run, str], Awaitable[None]]
    how: str
    at: int
    phases: dict[str, int] = field(factory=dict, init=False)
    """Number of steps until the end of each phase."""
    breaker: Breaker = field(init=False)
    scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    left_tasks: int = field(default=0, init=False)

    def run(self, path: str) -> str:
        """Run the block; return how it ended, in a word."""
        self.breaker = Breaker(self.at, self._break_off)
        try:
            trio.run(self._main, path, instruments=[self.breaker])
        except KeyboardInterrupt:
            return "interrupted"
        return "cancelled" if self.scope.cancelled_caught else "done"

    def end(self, phase: str) -> None:
        """Record the end of a phase."""
        self.phases[phase] = self.breaker.count

    def _break_off(self) -> None:
        if self.how == "cancel":
            self.scope.cancel()
        else:
            signal.raise_signal(signal.SIGINT)

    async def _main(self, path: str) -> None:
        before = trio.lowlevel.current_statistics().tasks_living
        try:
            with self.scope:
                await self.subject(self, path)
                self.end("exit")
        finally:
            now = trio.lowlevel.current_statistics().tasks_living
            self.left_tasks = now - before


async def _controller(run: Run, path: str) -> None:
    async with open_controller(
        Application(services=[Service("web", work), Command("nap", ["sleep", "1000"])]),
        socket_path=path,
        on_event=lambda _: None,
    ) as controller:
        run.end("entry")
        await controller.wait_ready()
        run.end("start")
        await controller.restart("web")
        run.end("body")


async def _imported(run: Run, path: str) -> None:
    async with open_controller(
        application,
        socket_path=path,
        source="tests.kits.embedded_application:application",
        on_event=lambda _: None,
    ) as controller:
        await controller.wait_ready()
        run.end("start")
        await controller.reload()
        run.end("reload")


async def _client(run: Run, path: str) -> None:
    async with open_client(path) as client:
        run.end("entry")
        await client.status()
        await client.forward("worker.0", "thread_dump")
        run.end("body")


async def _worker(run: Run, path: str) -> None:
    async with supervised_worker(path, name="guest") as worker:
        run.end("entry")
        worker.handle("answer", lambda: {"answer": 42})
        await worker.wait_registered()
        async with open_client(path) as client:
            await client.forward("guest", "answer")
        run.end("body")


SUBJECTS: Mapping[str, Callable[[Run, str], Awaitable[None]]] = {
    "controller": _controller,
    "imported": _imported,
    "client": _client,
    "worker": _worker,
}
# These need a supervisor that they did not start.
_GUESTS = ("client", "worker")


def check(subject: str, how: str, at: int, path: str) -> tuple[Run, list[str]]:
    """Run the block once; return the run and what is wrong with its end."""
    run = Run(SUBJECTS[subject], how, at)
    places = (os.path.dirname(path), tempfile.gettempdir())
    before = Leftovers.current(*places)
    began = time.monotonic()
    outcome = run.run(path)
    seconds = time.monotonic() - began
    problems = Leftovers.current(*places).new_since(before)
    if run.left_tasks:
        problems.append(f"{run.left_tasks} tasks")
    if seconds > _TOO_LONG:
        problems.append(f"it took {seconds:.1f} s")
    print(subject, how, at, outcome, run.phases, *problems, flush=True)
    return run, problems


def _points(subject: str, how: str, words: list[str], path: str) -> Iterator[int]:
    if words == ["all"]:
        yield from range(1, sys.maxsize)
    elif words[0].startswith(":"):
        whole, problems = check(subject, how, 0, path)
        assert not problems, problems
        yield from spread(whole.phases, int(words[0][1:]))
    else:
        yield from map(int, words)


def spread(phases: Mapping[str, int], count: int) -> Iterator[int]:
    """Return *count* points from all phases, the same ones each time."""
    rng = random.Random(0)
    before = 0
    for end in phases.values():
        for number in range(count // len(phases)):
            # One from each of *count* equal parts.
            part = (number + rng.random()) / (count // len(phases))
            yield before + 1 + int(part * (end - before))
        before = end


def _live(subject: str, how: str, words: list[str], path: str) -> int:
    failed = False
    for at in _points(subject, how, words, path):
        faulthandler.dump_traceback_later(2 * _TOO_LONG, exit=True)
        run, problems = check(subject, how, at, path)
        faulthandler.cancel_dump_traceback_later()
        failed |= bool(problems)
        if words == ["all"] and run.breaker.count < at:
            break
    return int(failed)


def main(subject: str, how: str, *words: str) -> int:
    """Run the block once for each point; return an exit code."""
    with short_directory() as own, short_directory() as directory:
        os.environ["TMPDIR"] = tempfile.tempdir = str(own)
        if subject not in _GUESTS:
            return _live(subject, how, list(words), str(directory / "supervisor.ipc"))
        with open_serving(ISSUE_SERVICE) as serving:
            serving.when_ready()
            return _live(
                subject, how, list(words), str(serving.directory / "supervisor.ipc")
            )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
