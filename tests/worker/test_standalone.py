"""A program that registers on its own: real threads, both loops, a bare supervisor."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from tests.kits.serving import PATIENCE, short_directory
from tests.worker.test_agent import Supervisor
from trio_supervisor import SpecError, supervised_worker
from trio_supervisor.worker import standalone
from trio_supervisor.worker.standalone import SupervisedWorker

Main = Callable[[], Coroutine[Any, Any, None]]
Run = Callable[[Main], None]


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where the socket is, or would be."""
    with short_directory() as directory:
        yield directory


@pytest.fixture
def supervisor(directory: Path) -> Iterator[Supervisor]:
    """Somebody to register at."""
    supervisor = Supervisor(directory)
    yield supervisor
    supervisor.close()


LOOPS: dict[str, Run] = {
    "trio": lambda main: trio.run(main),
    "asyncio": lambda main: asyncio.run(main()),
    "anyio": lambda main: anyio.run(main, backend="asyncio"),
}


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Run:
    """What runs a program in an event loop: each has ways of its own."""
    return LOOPS[request.param]


@pytest.fixture(params=["main", "thread"])
def run(request: pytest.FixtureRequest, loop: Run) -> Run:
    """The same, in the main thread or in another one."""
    if request.param == "main":
        return loop
    return lambda main: with_thread(lambda: loop(main))()


def with_thread(function: Callable[[], object]) -> Callable[[], None]:
    """Start *function* in a thread; return what joins it, and raises what it raised."""
    errors: list[BaseException] = []

    def catch() -> None:
        try:
            function()
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=catch)
    thread.start()

    def join() -> None:
        thread.join(PATIENCE)
        assert not thread.is_alive()
        if errors:
            raise errors[0]

    return join


def agents() -> list[threading.Thread]:
    """The threads of agents that run."""
    return [t for t in threading.enumerate() if t.name == "trio_supervisor agent"]


def until_told(
    directory: Path, **arguments: Any
) -> Callable[[Callable[[SupervisedWorker], None]], Main]:
    """Return a program that is registered until its operation ``end`` is called."""

    def make(prepare: Callable[[SupervisedWorker], None]) -> Main:
        async def main() -> None:
            end = anyio.Event()
            path = directory / "supervisor.ipc"
            async with supervised_worker(path, **arguments) as worker:
                worker.handle("end", end.set)
                prepare(worker)
                await end.wait()

        return main

    return make


async def opened() -> None:
    """Do nothing."""


def nothing(_: SupervisedWorker) -> None:
    """Prepare nothing."""


def test_supervised_worker_registers_and_answers(
    directory: Path, supervisor: Supervisor, run: Run
) -> None:
    """Its own operations run in its own loop, sync and async."""
    found: dict[str, Any] = {}

    def who() -> str:
        return threading.current_thread().name

    async def later(seconds: float) -> str:
        await anyio.sleep(seconds)
        return who()

    def prepare(worker: SupervisedWorker) -> None:
        found["thread"] = who()
        worker.handle("who", who)
        worker.handle("later", later)

    def talk() -> None:
        with supervisor.accept() as it:
            found["state"] = it.welcome()
            found["who"] = it.ask(id=3, do="who")["data"]
            found["later"] = it.ask(id=5, do="later", seconds=0.01)["data"]
            found["dump"] = it.ask(id=7, do="thread_dump")["data"]
            found["tasks"] = it.ask(id=9, do="scheduler_dump")
            found["unknown"] = it.ask(id=11, do="dance")["error"]["class"]
            it.ask(id=13, do="end")

    join = with_thread(talk)
    run(until_told(directory, name="importer", state={"role": "x"})(prepare))
    join()

    assert found["state"] == {
        "role": "x",
        "name": "importer",
        "process_id": os.getpid(),
    }
    assert found["who"] == found["later"] == found["thread"]
    assert "trio_supervisor agent" in found["dump"]
    assert found["tasks"]["tasks"], "the loop of the program is found"
    assert found["unknown"] == "UnknownOperation"
    assert agents() == []


def test_operations_added_before_first_wait_exist_when_registered(
    directory: Path,
    supervisor: Supervisor,
    loop: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the first calls would meet operations that are not known yet."""
    monkeypatch.setattr(standalone, "_HEAD_START", PATIENCE)

    def talk() -> None:
        with supervisor.accept() as it:
            it.welcome()
            it._file.read()

    async def main() -> None:
        async with supervised_worker(directory / "supervisor.ipc") as worker:
            connecting, _, _ = select.select([supervisor._listener], [], [], 0.2)
            assert not connecting, "it has not begun: operations may be added"
            join = with_thread(talk)
            await worker.wait_registered()
        join()

    loop(main)


def test_supervised_worker_that_never_waits_registers(
    directory: Path, supervisor: Supervisor, loop: Run
) -> None:
    """What a block says before it first waits is there when the program registers."""
    heard = threading.Event()

    def talk() -> None:
        with supervisor.accept() as it:
            it.welcome()
            assert "main" in it.ask(id=3, do="thread_dump")["data"]
            heard.set()
            it._file.read()

    async def main() -> None:
        async with supervised_worker(directory / "supervisor.ipc"):
            assert heard.wait(PATIENCE)

    join = with_thread(talk)
    loop(main)
    join()


def test_supervised_worker_without_name_is_its_pid(
    directory: Path, supervisor: Supervisor, loop: Run
) -> None:
    states: list[dict[str, Any]] = []
    names: list[str] = []

    def talk() -> None:
        with supervisor.accept() as it:
            states.append(it.welcome())
            it.ask(id=3, do="end")

    join = with_thread(talk)
    main = until_told(directory)(lambda worker: names.append(worker.name))
    loop(main)
    join()
    assert states == [{"process_id": os.getpid()}]
    assert names == [f"pid-{os.getpid()}"]


def test_supervised_worker_answers_while_loop_is_blocked(
    directory: Path, supervisor: Supervisor, run: Run
) -> None:
    dumped = threading.Event()
    dumps: list[str] = []

    def stands_still() -> None:
        assert dumped.wait(PATIENCE)

    def talk() -> None:
        with supervisor.accept() as it:
            it.welcome()
            it.say(id=3, do="block")
            while "stands_still" not in (
                dump := it.ask(id=5, do="thread_dump").get("data", "")
            ):
                pass
            dumps.append(dump)
            dumped.set()
            assert it.hear()["id"] == 3
            it.ask(id=7, do="end")

    join = with_thread(talk)
    run(until_told(directory)(lambda worker: worker.handle("block", stands_still)))
    join()
    assert "stands_still" in dumps[0]


def test_supervised_worker_registers_again_with_its_state(
    directory: Path, supervisor: Supervisor, loop: Run
) -> None:
    """For ever: with each supervisor that comes."""
    counts: list[int] = []

    def prepare(worker: SupervisedWorker) -> None:
        worker.state["count"] = 0

        def count() -> None:
            worker.state["count"] += 1

        worker.handle("count", count)

    def talk() -> None:
        for _ in range(3):
            with supervisor.accept() as it:
                counts.append(it.welcome()["count"])
                it.ask(id=3, do="count")
        with supervisor.accept() as it:
            it.welcome()
            it.ask(id=3, do="end")

    join = with_thread(talk)
    loop(until_told(directory)(prepare))
    join()
    assert counts == [0, 1, 2]


def test_supervised_worker_waits_for_supervisor(directory: Path, loop: Run) -> None:
    """The block is entered without one; `wait_registered` tells when there is one."""
    seen: list[str | None] = []

    async def main() -> None:
        async with supervised_worker(directory / "supervisor.ipc") as worker:
            seen.append(worker.connection_id)
            supervisor = Supervisor(directory)

            def talk() -> None:
                with supervisor.accept() as it:
                    it.welcome()
                    it._file.read()

            join = with_thread(talk)
            await worker.wait_registered()
            seen.append(worker.connection_id)
        join()
        supervisor.close()
        seen.append(worker.connection_id)

    loop(main)
    assert seen == [None, "x", None]


@pytest.mark.parametrize("is_there", [False, True], ids=["alone", "registered"])
@pytest.mark.parametrize("how", ["exit", "error", "exit of the process", "cancel"])
def test_supervised_worker_leaves_nothing_behind(
    directory: Path, run: Run, how: str, is_there: bool
) -> None:
    """No thread, no descriptor; and what was raised comes out as it was."""
    supervisor = Supervisor(directory) if is_there else None
    talks: list[Callable[[], None]] = []

    def talk() -> None:
        assert supervisor is not None
        with supervisor.accept() as it:
            it.welcome()
            assert it._file.read() == b""

    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with supervised_worker(directory / "supervisor.ipc") as worker:
                if is_there:
                    talks.append(with_thread(talk))
                    await worker.wait_registered()
                if how == "error":
                    raise LookupError("mine")
                if how == "exit of the process":
                    raise SystemExit(7)
                if how == "cancel":
                    scope.cancel()
                    await anyio.sleep(1000)
        assert scope.cancelled_caught == (how == "cancel")
        assert agents() == []

    run(opened)  # what loops keep open for good
    before = len(os.listdir("/proc/self/fd"))
    match how:
        case "error":
            with pytest.raises(LookupError, match="mine"):
                run(main)
        case "exit of the process":
            with pytest.raises(SystemExit, match="7"):
                run(main)
        case _:
            run(main)
    for join in talks:
        join()
    assert agents() == []
    assert len(os.listdir("/proc/self/fd")) == before
    if supervisor is not None:
        supervisor.close()


def test_call_in_progress_is_cancelled_at_block_end(
    directory: Path, supervisor: Supervisor, run: Run
) -> None:
    ended: list[str] = []

    def prepare(worker: SupervisedWorker) -> None:
        begun = anyio.Event()

        async def long() -> None:
            begun.set()
            try:
                await anyio.sleep(1000)
            finally:
                ended.append("long")

        worker.handle("long", long)
        worker.handle("begun", begun.wait)

    def talk() -> None:
        with supervisor.accept() as it:
            it.welcome()
            it.say(id=3, do="long")
            assert it.ask(id=5, do="begun")["id"] == 5
            it.say(id=7, do="end")
            it._file.read()

    join = with_thread(talk)
    run(until_told(directory)(prepare))
    join()
    assert ended == ["long"]


def test_two_supervised_workers_in_one_process(
    directory: Path, supervisor: Supervisor, loop: Run
) -> None:
    names: set[str] = set()

    def talk() -> None:
        with supervisor.accept() as one, supervisor.accept() as two:
            names.update(it.welcome()["name"] for it in (one, two))
            two.ask(id=3, do="end")
            one.ask(id=3, do="end")

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for name in ("one", "two"):
                group.start_soon(until_told(directory, name=name)(nothing))

    join = with_thread(talk)
    loop(main)
    join()
    assert names == {"one", "two"}
    assert agents() == []


@pytest.mark.parametrize("name", ["", 7, b"x"])
async def test_supervised_worker_name_must_be_text(name: Any) -> None:
    with pytest.raises(SpecError, match=r"^name: expected a name"):
        async with supervised_worker("x.ipc", name=name):
            pass
    assert agents() == []


def test_relative_socket_path_is_resolved_on_entry(
    directory: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the variable where nothing is said."""
    monkeypatch.chdir(directory)
    monkeypatch.delenv("TRIO_SUPERVISOR_SOCKET", raising=False)

    def talk() -> None:
        for _ in range(2):
            with supervisor.accept() as it:
                it.welcome()
                it._file.read()

    async def main() -> None:
        async with supervised_worker() as worker:
            os.chdir("/")
            await worker.wait_registered()
        monkeypatch.setenv("TRIO_SUPERVISOR_SOCKET", str(directory / "supervisor.ipc"))
        async with supervised_worker() as worker:
            await worker.wait_registered()

    join = with_thread(talk)
    trio.run(main)
    join()
