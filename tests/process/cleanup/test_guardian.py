"""The guardian: its table, and stopping everything when the controller is killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.process.cleanup.guardian import Table, WatchedGroup, end_all
from trio_supervisor.process.cleanup.guardian_client import open_guardian
from trio_supervisor.process.cleanup.stopping import StopPlan
from trio_supervisor.process.groups import IS_LINUX

TERM, KILL = signal.SIGTERM, signal.SIGKILL
MARKER_NAME = "TRIO_SUPERVISOR_TEST_MARKER"

_PROGRAM = """
import os, signal, sys, time
for sig in {ignores!r}:
    signal.signal(sig, signal.SIG_IGN)
if {new_session!r} and os.fork():
    os._exit(0)
if {new_session!r}:
    os.setsid()
os.write(1, b"%d\\n" % os.getpid())
time.sleep(3600)
"""


class Sleeper:
    """A process that leads a group, observed without reaping it."""

    def __init__(self, process: subprocess.Popen[bytes], pid: int) -> None:
        self.leader = process.pid
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._process = process

    def has_ended(self) -> bool:
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def returncode(self) -> int:
        return self._process.wait(30)

    def await_end(self) -> float:
        """Return the moment at which the child ended [s]."""
        os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT)
        return time.monotonic()

    def close(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, KILL)
        os.close(self._pidfd)
        self._process.kill()
        self._process.wait()


@contextmanager
def sleeper(
    ignores: Sequence[int] = (),
    *,
    marker: str | None = None,
    new_session: bool = False,
) -> Iterator[Sleeper]:
    """A process that has started; *new_session*: a daemon outside of its group."""
    environment = dict(os.environ)
    if marker is not None:
        environment[MARKER_NAME] = marker
    program = _PROGRAM.format(
        ignores=[int(sig) for sig in ignores], new_session=new_session
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment,
        process_group=0,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout as stdout:
        found = Sleeper(process, int(stdout.readline()))
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def marker() -> str:
    """A marker for the processes of this test."""
    return str(uuid.uuid4())


def table_of(*groups: tuple[int, int, float]) -> Table:
    table = Table()
    for group, sig, timeout in groups:
        table.receive_data(b"+ %d %d %f\n" % (group, sig, timeout))
    return table


# The table.

groups = st.integers(2, 6)
lines = st.one_of(
    st.tuples(groups, st.sampled_from([2, 15]), st.sampled_from([0.0, 1.5, 10.0])),
    groups,
    st.sampled_from([b"", b"+ 5", b"+ 1 2 3 4", b"nonsense", b"- ", b"qui", b"+ 7 15"]),
)


@given(st.lists(lines), st.booleans(), st.data())
def test_table_receives_data_in_pieces_of_any_size(
    said: list[tuple[int, int, float] | int | bytes], quits: bool, data: st.DataObject
) -> None:
    """Compared with a dictionary, line by line; unknown lines are ignored."""
    expected: dict[int, WatchedGroup] = {}
    written = b""
    for line in said:
        match line:
            case bytes():
                written += line + b"\n"
            case int(group):
                expected.pop(group, None)
                written += b"- %d\n" % group
            case group, sig, timeout:
                expected[group] = WatchedGroup(sig, timeout)
                written += f"+ {group} {sig} {timeout}\n".encode()
    if quits:
        written += b"quit\n"
    table = Table()
    while written:
        size = data.draw(st.integers(1, len(written)))
        table.receive_data(written[:size])
        written = written[size:]
    assert table.groups == expected
    assert table.is_dismissed == quits


def test_table_ignores_incomplete_last_line() -> None:
    """``+ 4711 15 1`` may have been meant to be ``+ 4711 15 10.0``."""
    table = table_of((11, 15, 1.0))
    table.receive_data(b"+ 4711 15 1")
    assert list(table.groups) == [11]


# Ending real processes.

needs_linux = pytest.mark.skipif(not IS_LINUX, reason="/proc and pidfds")


@needs_linux
def test_end_all_sends_stop_signal_of_each_group(marker: str) -> None:
    with sleeper() as one, sleeper(marker=marker) as other:
        table = table_of((one.pid, TERM, 30), (other.pid, signal.SIGINT, 30))
        end_all(table, f"{MARKER_NAME}={marker}")
        assert one.returncode() == -TERM
        assert other.returncode() in (-signal.SIGINT, 1)  # Python: KeyboardInterrupt


@needs_linux
def test_end_all_kills_after_timeout_of_each_group() -> None:
    """Not after the longest of all, and not before the own timeout."""
    with sleeper([TERM]) as quick, sleeper([TERM]) as slow, sleeper([TERM]) as slowest:
        table = table_of(
            (quick.pid, TERM, 0.1), (slow.pid, TERM, 1.0), (slowest.pid, TERM, 600)
        )
        with ThreadPoolExecutor(1) as pool:
            began = time.monotonic()
            ending = pool.submit(end_all, table, "")
            assert quick.await_end() - began >= 0.1
            assert slow.await_end() - began >= 1.0
            assert not slowest.has_ended()
            os.kill(slowest.pid, KILL)
            ending.result()
        assert quick.returncode() == slow.returncode() == -KILL


@needs_linux
def test_end_all_resumes_stopped_process() -> None:
    with sleeper() as paused:
        os.kill(paused.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, paused.pid, os.WSTOPPED | os.WNOWAIT)
        end_all(table_of((paused.pid, TERM, 30)), "")
        assert paused.returncode() == -TERM


@needs_linux
@pytest.mark.parametrize("ignores", [(), (TERM,)], ids=["obeys", "stubborn"])
def test_end_all_finds_daemon_by_marker(marker: str, ignores: Sequence[int]) -> None:
    with (
        sleeper() as watched,
        sleeper(ignores, marker=marker, new_session=True) as daemon,
    ):
        assert os.getpgid(daemon.pid) != daemon.leader
        table = table_of((watched.pid, TERM, 0.2))
        ended = end_all(table, f"{MARKER_NAME}={marker}")
        assert daemon.pid in ended
        assert all(ended.values())
        assert watched.pid not in ended
        assert daemon.has_ended()
        assert watched.has_ended()


@needs_linux
def test_end_all_spares_other_processes(marker: str) -> None:
    """Neither groups that are not in the table, nor those with another marker."""
    with sleeper() as stranger, sleeper(marker=marker + "x", new_session=True) as other:
        with sleeper() as watched:
            table = table_of((watched.pid, TERM, 0.1), (stranger.pid, TERM, 0.1))
            table.receive_data(b"- %d\n" % stranger.pid)
            end_all(table, f"{MARKER_NAME}={marker}")
        assert not stranger.has_ended()
        assert not other.has_ended()


@needs_linux
def test_end_all_ignores_groups_that_are_gone() -> None:
    with sleeper() as gone:
        os.kill(gone.pid, KILL)
        gone.returncode()
        end_all(table_of((gone.pid, TERM, 30)), "")


# The guardian as a process, and the controller's side of it.


async def until(is_so: Callable[[], bool]) -> None:
    """Poll until *is_true*: the kernel sends no notification."""
    while not is_so():  # noqa: ASYNC110
        await trio.sleep(0.005)


class Guardian:
    """A guardian process; the test holds its pipe in place of the controller."""

    def __init__(self, marker: str, directory: str) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "trio_supervisor.process.cleanup.guardian",
                f"{MARKER_NAME}={marker}",
                directory,
            ],
            stdin=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with self._process:
            pass

    def is_up(self) -> None:
        """Wait until it ignores the last of the signals that it ignores."""
        bit = 1 << signal.SIGQUIT - 1
        status = Path(f"/proc/{self._process.pid}/status")
        while not int(status.read_text().split("SigIgn:\t")[1].split()[0], 16) & bit:
            time.sleep(0.005)

    def says(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def loses_its_controller(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.ends()

    def ends(self) -> int:
        return self._process.wait(30)

    def is_sent(self, sig: int) -> None:
        self._process.send_signal(sig)


@needs_linux
def test_guardian_end_of_pipe_stops_all_and_removes_directory(
    tmp_path: Path, marker: str
) -> None:
    directory = tmp_path / "private"
    directory.mkdir()
    (directory / "notify").touch()
    with (
        sleeper() as watched,
        sleeper(marker=marker, new_session=True) as daemon,
        Guardian(marker, str(directory)) as guardian,
    ):
        guardian.says(b"+ %d 15 30.0\n" % watched.pid)
        assert guardian.loses_its_controller() == 0
        assert watched.returncode() == -TERM
        assert daemon.has_ended()
    assert not directory.exists()


@needs_linux
def test_guardian_quit_stops_nothing(tmp_path: Path, marker: str) -> None:
    with sleeper(marker=marker) as watched, Guardian(marker, str(tmp_path)) as guardian:
        guardian.says(b"+ %d 15 30.0\nquit\n" % watched.pid)
        assert guardian.ends() == 0
        assert not watched.has_ended()
    assert tmp_path.is_dir()


@needs_linux
def test_guardian_ignores_terminal_signals(marker: str) -> None:
    """Ctrl-C, Ctrl-\\ and a closed terminal must not end it: it is needed then."""
    with sleeper() as watched, Guardian(marker, "") as guardian:
        guardian.says(b"+ %d 15 30.0\n" % watched.pid)
        guardian.is_up()
        for sig in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, TERM):
            guardian.is_sent(sig)
        assert guardian.loses_its_controller() == 0
        assert watched.returncode() == -TERM


@needs_linux
async def test_guardian_killed_is_replaced_with_same_table(
    marker: str,
) -> None:
    """The second one stops the group when its pipe closes."""
    with sleeper() as kept, sleeper() as forgotten, sleeper() as late:
        # The controller in a process of its own, for it is killed in the end.
        controller = await trio.lowlevel.open_process(
            [sys.executable, "-c", _CONTROLLER, f"{MARKER_NAME}={marker}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert controller.stdin is not None
        assert controller.stdout is not None
        with trio.fail_after(30):
            first = int(await _line(controller.stdout))
            plans = (f"+ {kept.pid}", f"+ {forgotten.pid}", f"- {forgotten.pid}")
            for words in plans:
                await controller.stdin.send_all(words.encode() + b"\n")
                assert await _line(controller.stdout) == words
            os.kill(first, KILL)
            second = int(await _line(controller.stdout))
            second_pidfd = os.pidfd_open(second)
            assert second != first
            await controller.stdin.send_all(f"+ {late.pid}\n".encode())
            assert await _line(controller.stdout) == f"+ {late.pid}"
            controller.kill()
            await controller.wait()
            await until(lambda: kept.has_ended() and late.has_ended())
            assert kept.returncode() == late.returncode() == -TERM
            await trio.lowlevel.wait_readable(second_pidfd)
            os.close(second_pidfd)
            assert not forgotten.has_ended()
        await controller.stdin.aclose()
        await controller.stdout.aclose()


async def test_open_guardian_dismisses_it_at_the_end(marker: str) -> None:
    with sleeper(marker=marker) as watched:
        async with open_guardian(f"{MARKER_NAME}={marker}", "", os.environ) as guardian:
            with trio.fail_after(30):
                await until(lambda: guardian.process_id is not None)
            process_id = guardian.process_id
            guardian.watch(watched.pid, StopPlan())
        assert guardian.process_id is None
        assert process_id is not None
        with pytest.raises(ChildProcessError):  # it was waited for
            await trio.to_thread.run_sync(os.waitpid, process_id, 0)
        assert not watched.has_ended()


async def test_guardian_start_failure_is_retried(
    marker: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The application runs without a guardian in the meantime."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/absent")
        async with open_guardian(f"{MARKER_NAME}={marker}", "", os.environ) as guardian:
            with trio.fail_after(30):
                await until(lambda: "cannot start a guardian" in caplog.text)
                patch.undo()
                await until(lambda: guardian.process_id is not None)


_CONTROLLER = """
import os, sys, trio
from trio_supervisor.process.cleanup.guardian_client import open_guardian
from trio_supervisor.process.cleanup.stopping import StopPlan

async def tell_guardians(guardian):
    last = None
    while True:
        if guardian.process_id not in (None, last):
            last = guardian.process_id
            print(last, flush=True)
        await trio.sleep(0.05)

async def main():
    async with open_guardian(sys.argv[1], "", os.environ) as guardian:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell_guardians, guardian)
            async for line in trio.lowlevel.FdStream(os.dup(0)):
                word, group = line.split()
                if word == b"+":
                    guardian.watch(int(group), StopPlan())
                else:
                    guardian.forget(int(group))
                await trio.testing.wait_all_tasks_blocked(0.01)
                print(line.decode().strip(), flush=True)

import trio.testing
trio.run(main)
"""


async def _line(stream: trio.abc.ReceiveStream) -> str:
    data = b""
    while not data.endswith(b"\n"):
        piece = await stream.receive_some(1)
        assert piece, f"the controller ended after {data!r}"
        data += piece
    return data.decode().strip()
