"""The fork server with real processes: its children, and its failures."""

from __future__ import annotations

import json
import os
import pathlib
import pickle
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from attrs import define, field

from trio_supervisor.process.child import ChildProcess
from trio_supervisor.process.cleanup.orphans import Orphans
from trio_supervisor.process.cleanup.stopping import StopPlan, stop
from trio_supervisor.process.kernel import be_subreaper, child_pids
from trio_supervisor.process.spawn.attributes import ProcessAttributes
from trio_supervisor.process.spawn.fork_client import ForkClient, open_fork_client
from trio_supervisor.process.spawn.fork_server_protocol import (
    ForkServerPlan,
    PreloadPlan,
    start_fork_server,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs a subreaper")

ENTRY = "tests.kits.forked_entries:tell"
BOOT_TIME = 30.0
"""Ample for a new interpreter on a busy machine [s]."""


@define(eq=False)
class Nursery:
    """Forks children for a test, and kills the remaining ones."""

    fork_client: ForkClient
    children: list[ChildProcess] = field(factory=list)

    async def fork(
        self, prepare: Callable[[int], bytes | None] | None = None, **boot: Any
    ) -> tuple[ChildProcess, dict[str, Any]]:
        """Fork a child that prints its state; return child and state."""
        read, write = os.pipe()
        async with trio.lowlevel.FdStream(read) as told:
            try:
                process = await self.fork_client.fork(
                    ENTRY,
                    boot,
                    environment={**os.environ, "OF_THE_CHILD": "yes"},
                    title="a child",
                    descriptors=[write],
                    prepare=prepare,
                )
            finally:
                os.close(write)
            self.children.append(process)
            data = b""
            while not data.endswith(b"\n"):
                piece = await told.receive_some()
                assert piece, "the child ended before it told anything"
                data += piece
        return process, json.loads(data)


@asynccontextmanager
async def open_nursery(
    argument: object = (), modules: tuple[str, ...] = ()
) -> AsyncIterator[Nursery]:
    plan = ForkServerPlan(
        PreloadPlan(
            title="fork server (test)",
            modules=("tests.kits.forked_entries", *modules),
            preload="tests.kits.forked_entries:preload",
            argument=argument,
            warm_up="tests.kits.forked_entries:warm_up",
        ),
        {**os.environ, "OF_THE_SERVER": "yes"},
    )
    before = child_pids()
    with trio.fail_after(BOOT_TIME), be_subreaper() as is_subreaper:
        assert is_subreaper
        async with open_fork_client(plan) as fork_client:
            nursery = Nursery(fork_client)
            try:
                yield nursery
            finally:
                with trio.CancelScope(shield=True):
                    for child in nursery.children:
                        await stop(child, StopPlan(timeout=1))
                        child.close()
        await reap_left(before)


async def reap_left(others: set[int]) -> None:
    """Reap the children that the server has left to this process, except *others*.

    Other tests look whether they leave one.
    """
    while left := child_pids() - others:
        for pid in left:
            with suppress(ChildProcessError):  # others wait for it, too
                os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 (it does not wait)
        await trio.sleep(0.01)


async def test_forked_child_has_own_parent_group_and_environment() -> None:
    async with open_nursery() as nursery:
        process, told = await nursery.fork(then="exit", code=7)
        assert told["pid"] == process.pid
        assert told["group"] == process.pid
        assert told["parent"] == os.getpid()
        assert told["environment"]["OF_THE_CHILD"] == "yes"
        assert "OF_THE_SERVER" not in told["environment"]
        assert "SPT_NOENV" not in told["environment"]
        assert told["title"] == "trio_supervisor: a child"
        assert told["mask"] == 0
        assert await process.wait() == 7


async def test_forked_child_title_keeps_marker_in_proc_environ() -> None:
    """A title that overwrote it would hide the child from the guardian."""
    async with open_nursery() as nursery:
        process, _ = await nursery.fork(then="sleep")
        environment = await trio.Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"OF_THE_SERVER=yes" in environment.split(b"\0")


async def test_forked_child_has_no_other_descriptors() -> None:
    async with open_nursery() as nursery:
        first, told_first = await nursery.fork(then="sleep")
        _, told_second = await nursery.fork(then="sleep")
        # Standard streams, the inherited one, and the listed directory.
        assert len(told_first["open"]) == len(told_second["open"]) == 5
        assert first.returncode is None


async def test_forked_children_have_different_random_states() -> None:
    async with open_nursery() as nursery:
        tellings = [(await nursery.fork(then="sleep"))[1] for _ in range(6)]
        for key in ("pid", "random", "secret", "openssl"):
            assert len({telling[key] for telling in tellings}) == 6, key


@pytest.mark.parametrize(
    ("boot", "returncode"),
    [
        ({"then": "return"}, 0),
        ({"then": "exit", "code": 3}, 3),
        ({"then": "fail"}, 1),
    ],
)
async def test_forked_child_exit_status_is_known(
    boot: dict[str, Any], returncode: int
) -> None:
    async with open_nursery() as nursery:
        process, _ = await nursery.fork(**boot)
        assert await process.wait() == returncode


async def test_fork_many_at_once_starts_each_once() -> None:
    async with open_nursery() as nursery:
        tellings: list[dict[str, Any]] = []

        async def fork(number: int) -> None:
            tellings.append((await nursery.fork(then="sleep", number=number))[1])

        async with trio.open_nursery() as tasks:
            for number in range(40):
                tasks.start_soon(fork, number)
        assert sorted(told["boot"]["number"] for told in tellings) == list(range(40))
        assert len({told["pid"] for told in tellings}) == 40


async def test_fork_server_killed_is_replaced_and_children_keep_running() -> None:
    async with open_nursery() as nursery:
        survivor, _ = await nursery.fork(then="sleep")
        killed = nursery.fork_client.process_id
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        process, told = await nursery.fork(then="sleep")
        assert nursery.fork_client.process_id not in (None, killed)
        assert told["parent"] == os.getpid()
        assert survivor.returncode is None
        os.kill(survivor.pid, 0)
        assert process.pid != survivor.pid


async def test_fork_while_server_dies_starts_child_once() -> None:
    """Five requested children all start although the server is killed."""
    async with open_nursery() as nursery:
        await nursery.fork(then="sleep")
        tellings: list[dict[str, Any]] = []

        async def fork(number: int) -> None:
            tellings.append((await nursery.fork(then="sleep", number=number))[1])

        async with trio.open_nursery() as tasks:
            for number in range(5):
                tasks.start_soon(fork, number)
            await trio.lowlevel.checkpoint()
            assert nursery.fork_client.process_id is not None
            os.kill(nursery.fork_client.process_id, signal.SIGKILL)
        assert sorted(told["boot"]["number"] for told in tellings) == list(range(5))
        living = {child.pid for child in nursery.children}
        living |= nursery.fork_client.preforked | {nursery.fork_client.process_id or 0}
        unknown = [pid for pid in child_pids() - living if _is_forked(pid)]
        assert unknown == []


async def test_fork_after_preforked_children_were_killed() -> None:
    async with open_nursery() as nursery:
        await nursery.fork(then="sleep")
        while len(nursery.fork_client.preforked) < 2:  # noqa: ASYNC110 (nothing announces it)
            await trio.sleep(0.01)
        killed = set(nursery.fork_client.preforked)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        _, told = await nursery.fork(then="sleep")
        assert told["pid"] not in killed
        orphans = Orphans()
        orphans.reap((), nursery.fork_client.preforked)
        orphans.reap((), nursery.fork_client.preforked)


async def test_fork_server_warns_of_unsafe_resources(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
) -> None:
    name = f"unsafe_{uuid.uuid4().hex}"
    source = (
        "import socket, threading\n"
        "kept = socket.socketpair()\n"
        "threading.Thread(target=threading.Event().wait, name='poller',"
        " daemon=True).start()\n"
    )
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with open_nursery(["a problem of the preload"], (name,)) as nursery:
        await nursery.fork(then="sleep")
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "a problem of the preload" in said
    assert "the thread 'poller'" in said
    assert "a socket at" in said or "a connection to" in said
    assert 'start_method="exec"' in said


async def test_fork_server_exiting_in_import_raises_os_error() -> None:
    async with open_nursery(modules=("tests.process.no_such_module",)) as nursery:
        with pytest.raises(OSError, match="exited 3 times in a row"):
            await nursery.fork(then="sleep")


def test_fork_server_sigterm_at_exit_prints_no_traceback(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """After its controller is gone, the guardian sends SIGTERM as well."""
    plan = PreloadPlan(
        title="fork server (test)",
        modules=("tests.kits.forked_entries",),
        preload="tests.kits.forked_entries:end_twice",
        argument=(),
        warm_up="tests.kits.forked_entries:warm_up",
    )
    started = start_fork_server(ForkServerPlan(plan, os.environ))
    started.close()
    _, status = os.waitpid(started.process_id, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert capfd.readouterr().err == ""


def _is_forked(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().startswith(b"trio_supervisor: a child")
    except OSError:
        return False


async def test_prepare_is_called_before_the_child_runs() -> None:
    def prepare(process_id: int) -> None:
        os.setpriority(os.PRIO_PROCESS, process_id, 7)

    async with open_nursery() as nursery:
        _, told = await nursery.fork(prepare, then="sleep")
        assert told["nice"] == 7


async def test_child_sets_the_rest_of_its_attributes_itself() -> None:
    """What the controller may not set for a process of another user."""
    async with open_nursery() as nursery:
        rest = pickle.dumps(ProcessAttributes(nice=8))
        _, told = await nursery.fork(lambda _: rest, then="sleep")
        assert told["nice"] == 8


async def test_child_whose_prepare_fails_does_not_run() -> None:
    """And the server forks the next one."""

    def prepare(process_id: int) -> None:
        prepared.append(process_id)
        raise PermissionError("not allowed")

    prepared: list[int] = []
    async with open_nursery() as nursery:
        with pytest.raises(PermissionError, match="not allowed"):
            await nursery.fork(prepare, then="sleep")
        assert prepared[0] not in child_pids()
        await nursery.fork(then="sleep")
