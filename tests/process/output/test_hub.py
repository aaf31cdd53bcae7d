"""Output of real processes, from their pipes to its destinations."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import frozen

from tests.kits.output import (
    open_descriptors,
    open_destination,
    open_pipe,
    open_python,
    read_until,
    run_python,
)
from trio_supervisor.errors import SpecError
from trio_supervisor.process.output.hub import OutputHub, open_output_hub
from trio_supervisor.process.output.rendering import Form
from trio_supervisor.process.output.subscription import Subscription

# Prints so much that it gets stuck where nobody reads.
MUCH = """
import os, sys
for number in range(int(sys.argv[1])):
    os.write(1, b"%099d\\n" % number)
"""
PROMPT = """
import os, signal
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.write(1, b"Password: ")
signal.sigwait([signal.SIGUSR1])
os.write(1, b"\\n")
os.write(1, b"done\\n")
"""
DOTS = """
import os, time
while True:
    os.write(1, b".")
    time.sleep(0.01)
"""
HALVES = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.write(2, b"begun\\n")
signal.sigwait([signal.SIGUSR1])
os.write(1, b"one ")
os.write(1, b"two\\n")
signal.pause()
"""
HELLO = "import os; os.write(1, b'out\\n'); os.write(2, b'err\\n')"
CRASH = """
import os, signal
for number in range(500):
    os.write(2, b"line %d\\n" % number)
os.write(2, b"last words")
os.kill(os.getpid(), signal.SIGKILL)
"""
# A grandchild has the pipes for longer than the child.
LEAVES_SOMEBODY = """
import os, signal, sys
reading, writing = os.pipe()
os.write(1, b"child")
if os.fork() == 0:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.setsid()
    sys.stdin.read(1)
    while True:
        os.write(1, b"grandchild\\n")
        if sys.argv[1:] != ["endless"]:
            break
"""


@frozen
class Hub:
    """A hub, and the read ends of its output."""

    hub: OutputHub
    stdout: int
    stderr: int


@asynccontextmanager
async def open_hub(form: Form = "text") -> AsyncIterator[Hub]:
    with open_destination() as (stdout, out), open_destination() as (stderr, err):
        with trio.fail_after(60):
            async with open_output_hub(form, stdout=stdout, stderr=stderr) as hub:
                yield Hub(hub, out, err)
                for descriptor in out, err:  # nobody waits for who does not read
                    os.close(descriptor)


def block_until_it_ends(process: trio.Process) -> None:
    """Block the event loop."""
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


async def until_file_has(path: Path, data: bytes) -> None:
    """Wait until *data* is written to *path* by a thread."""
    file = trio.Path(path)
    while data not in await file.read_bytes():
        await trio.lowlevel.checkpoint()


def numbers_in(directory: Path) -> list[int]:
    """Return the lines of the rotated files and the last one."""
    paths = [*sorted(directory.glob("log.*")), directory / "log"]
    assert len(paths) > 3
    return [int(n) for path in paths for n in path.read_bytes().split()]


async def test_lines_have_child_name_and_keep_stream() -> None:
    async with open_hub() as hub:
        assert await run_python(HELLO, hub.hub.open("web.0")) == 0
        assert await read_until(hub.stdout, b"\n") == b"web.0        | out\n"
        assert await read_until(hub.stderr, b"\n") == b"web.0        | err\n"


async def test_incomplete_line_reaches_output_and_tail_within_a_second() -> None:
    """A prompt is shown while its program waits for the answer."""
    async with open_hub() as hub:
        output = hub.hub.open("web.0")
        async with open_python(PROMPT, output) as process:
            with hub.hub.subscribe(None) as lines:
                prompt = await read_until(hub.stdout, b"\n")
                assert prompt == "web.0        | Password: …\n".encode()
                (entry,) = (await anext(lines)).entries
                assert (entry["message"], entry["truncated"]) == ("Password: ", True)
                process.send_signal(signal.SIGUSR1)
                # The newline that ends the prompt is not a line.
                rest = await read_until(hub.stdout, b"done\n")
                assert rest == b"web.0        | done\n"
        output.finish()
        assert [line.text for line in output.last_lines(9)] == ["Password: ", "done"]


async def test_steady_output_without_newline_is_passed_on() -> None:
    """More bytes do not delay the line further."""
    async with open_hub("json") as hub, open_python(DOTS, hub.hub.open("web.0")):
        first = json.loads(await read_until(hub.stdout, b"\n"))
        second = json.loads(await read_until(hub.stdout, b"\n"))
    assert set(first["message"]) == set(second["message"]) == {"."}


async def test_late_read_line_is_not_cut() -> None:
    """The pipe is read before a line counts as incomplete."""
    async with open_hub() as hub:
        output = hub.hub.open("web.0")
        stdout, _ = output.descriptors
        writing = os.dup(stdout)
        output.started(os.getpid())
        os.write(writing, b"one ")
        await trio.testing.wait_all_tasks_blocked()
        os.write(writing, b"two\n")
        time.sleep(0.7)  # noqa: ASYNC251 (the loop hangs for so long)
        os.close(writing)
        line = await read_until(hub.stdout, b"\n")
        assert line == b"web.0        | one two\n"


async def test_pump_stop_between_two_blocks_loses_none() -> None:
    """A block that the pump is passing on is written as well."""
    async with open_hub() as hub:
        output = hub.hub.open("web.0")
        stdout, _ = output.descriptors
        writing = os.dup(stdout)
        output.started(os.getpid())
        await trio.testing.wait_all_tasks_blocked()
        os.write(writing, b"one ")
        await trio.testing.wait_all_tasks_blocked()
        os.write(writing, b"two\nthree\n")
        # The pump wakes, reads both lines, and has passed on the first of them.
        (pump, _) = output._pumps
        while pump._pending or b"one" in pump._assembler.rest:
            await trio.lowlevel.checkpoint()
        output.close()
        os.close(writing)
        printed = await read_until(hub.stdout, b"three\n")
        assert printed == b"web.0        | one two\nweb.0        | three\n"


async def test_log_file_of_one_worker_gets_bytes_immediately(tmp_path: Path) -> None:
    """Before the end of a line, and exactly as the worker wrote them."""
    path = tmp_path / "log"
    async with open_hub() as hub:
        output = hub.hub.open("web.0", stdout=str(path), stderr=str(path))
        async with open_python(PROMPT, output) as process:
            await until_file_has(path, b"Password: ")
            assert path.read_bytes() == b"Password: "
            process.send_signal(signal.SIGUSR1)
            await process.wait()
        output.finish()
        output.close()
        await until_file_has(path, b"done\n")
        assert path.read_bytes() == b"Password: \ndone\n"
        assert [line.text for line in output.last_lines(9)] == ["Password: ", "done"]


async def test_log_file_of_two_workers_keeps_lines_whole(tmp_path: Path) -> None:
    """Only whole lines are written while both may write."""
    path = tmp_path / "log"
    async with open_hub() as hub:
        first = hub.hub.open("web.0", stdout=str(path))
        second = hub.hub.open("web.1", stdout=str(path))
        with hub.hub.subscribe(["web.0"]) as lines:
            async with open_python(HALVES, first) as one, open_python(HALVES, second):
                await anext(lines)
                one.send_signal(signal.SIGUSR1)
                await until_file_has(path, b"\n")
        assert path.read_bytes() == b"one two\n"


async def test_json_lines_name_the_process() -> None:
    """Name, pid and generation."""
    async with open_hub("json") as hub:
        output = hub.hub.open("web.0")
        process = await trio.lowlevel.open_process(
            ["/bin/echo", "hello"],
            stdout=output.descriptors[0],
            stderr=output.descriptors[1],
        )
        output.started(process.pid, generation=7, incarnation=2)
        line = json.loads(await read_until(hub.stdout, b"\n"))
        await process.wait()
    assert line.pop("time").endswith("Z")
    assert line == {
        "name": "web.0",
        "pid": process.pid,
        "generation": 7,
        "stream": "stdout",
        "message": "hello",
    }


async def test_child_with_own_form() -> None:
    """Such as a child that formats its log itself."""
    async with open_hub() as hub:
        await run_python(HELLO, hub.hub.open("supervisor", form="raw"))
        assert await read_until(hub.stdout, b"\n") == b"out\n"


async def test_last_lines_of_crash_are_complete_after_exit() -> None:
    """Even without a newline, and without waiting."""
    async with open_hub() as hub:
        for _ in range(20):
            output = hub.hub.open("web.0")
            assert await run_python(CRASH, output) == -signal.SIGKILL
            lines = [(line.stream, line.text) for line in output.last_lines(3)]
            assert lines == [
                ("stderr", "line 498"),
                ("stderr", "line 499"),
                ("stderr", "last words"),
            ]
            assert len(output.last_lines(1000)) == 501


@pytest.mark.skipif(sys.platform != "linux", reason="pipes have one size elsewhere")
async def test_full_pipe_is_read_completely_after_exit() -> None:
    """It takes several reads, for which the event loop had no time before."""
    with open_destination() as (stdout, reading):
        async with open_output_hub("raw", stdout=stdout, stderr=stdout) as hub:
            output = hub.open("web.0")
            fcntl.fcntl(output.descriptors[0], fcntl.F_SETPIPE_SZ, 1024 * 1024)
            async with open_python(MUCH, output, ["9000"]) as process:
                block_until_it_ends(process)
                output.finish()
                assert int(output.last_lines(1)[0].text) == 8999
                output.close()
            data = await read_until(reading, b"8999\n")
    assert [int(line) for line in data.split()] == list(range(9000))


async def test_output_of_process_that_inherited_pipes_is_read_later() -> None:
    """A process left by the child prints after the child has exited."""
    async with open_hub() as hub:
        output = hub.hub.open("web.0")
        stdout, stderr = output.descriptors
        process = await trio.lowlevel.open_process(
            [sys.executable, "-S", "-c", LEAVES_SOMEBODY],
            stdin=-1,
            stdout=stdout,
            stderr=stderr,
        )
        output.started(process.pid)
        await process.wait()
        output.finish()
        assert [line.text for line in output.last_lines(9)] == ["child"]
        assert (await read_until(hub.stdout, b"\n")).endswith(b"| child\n")
        with hub.hub.subscribe(None) as lines:
            assert process.stdin is not None
            await process.stdin.aclose()
            batch = await anext(lines)
        assert [entry["message"] for entry in batch.entries] == ["grandchild"]


async def test_close_ends_reading_with_sigpipe_for_writers() -> None:
    """A process that keeps printing dies from SIGPIPE."""
    async with open_hub() as hub:
        with hub.hub.open("web.0") as output, open_pipe() as (alive, alive_end):
            stdout, stderr = output.descriptors
            process = await trio.lowlevel.open_process(
                [sys.executable, "-S", "-c", LEAVES_SOMEBODY, "endless"],
                stdin=-1,
                stdout=stdout,
                stderr=stderr,
                pass_fds=[alive_end],
            )
            os.close(alive_end)
            output.started(process.pid)
            await process.wait()
            output.close()
            assert process.stdin is not None
            await process.stdin.aclose()
            assert await trio.to_thread.run_sync(os.read, alive, 1) == b""


async def test_child_does_not_block_if_our_output_is_not_read() -> None:
    """20 MB to a blocked destination; the last lines are still kept.

    What hangs until the end does not hold that up for long, either.
    """
    with open_destination() as (hanging, _), trio.fail_after(60):
        async with open_output_hub(stdout=hanging, stderr=hanging) as hub:
            output = hub.open("web.0")
            assert await run_python(MUCH, output, "200000") == 0
            lines = [int(line.text) for line in output.last_lines(2)]
            assert lines == [199998, 199999]
            ended = trio.current_time()
        assert 1.9 < trio.current_time() - ended < 30


async def test_flooding_child_does_not_delay_others() -> None:
    async with open_hub() as hub:
        flood = "while True: print('x' * 99)"
        with (
            hub.hub.open("web.0", stdout="/dev/null") as loud,
            hub.hub.open("web.1") as quiet,
        ):
            async with open_python(flood, loud):
                while not loud.last_lines(1):
                    await trio.lowlevel.checkpoint()
                await run_python(HELLO, quiet)
                assert {line.text for line in quiet.last_lines(9)} == {"out", "err"}


async def test_output_file_is_exact_byte_for_byte(tmp_path: Path) -> None:
    """Binary data, endless lines, no final newline; nothing appears in our output."""
    data = (os.urandom(3_000_000) + b"x" * 200_000) * 3
    source, path = tmp_path / "source", tmp_path / "log"
    source.write_bytes(data)
    program = """
import os, sys
data = open(sys.argv[1], "rb").read()
while data:
    data = data[os.write(1, data[:77_777]):]
"""
    async with open_hub() as hub:
        output = hub.hub.open("web.0", stdout=str(path))
        assert await run_python(program, output, str(source)) == 0
        # When the process has exited, the rest may still be in its pipe.
        with trio.fail_after(60):
            while path.stat().st_size < len(data):
                await hub.hub.flush()
                await trio.sleep(0.01)
        assert path.read_bytes() == data
        await run_python(HELLO, hub.hub.open("web.1"))
        assert (await read_until(hub.stdout, b"\n")).startswith(b"web.1 ")


async def test_both_streams_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    async with open_hub() as hub:
        output = hub.hub.open("web.0", stdout=str(path), stderr=str(path))
        await run_python(HELLO, output)
    assert sorted(path.read_text().splitlines()) == ["err", "out"]


async def test_rotation_during_writing_loses_no_line(tmp_path: Path) -> None:
    """Repeatedly, as logrotate does."""
    path = tmp_path / "log"
    async with open_hub() as hub:
        output = hub.hub.open("web.0", stdout=str(path))
        async with open_python(MUCH, output, ["100000"]) as process:
            number = 0
            while process.poll() is None:
                if path.exists():
                    path.rename(tmp_path / f"log.{number:05}")
                    hub.hub.reopen()
                    number += 1
                await trio.lowlevel.checkpoint()
    assert numbers_in(tmp_path) == list(range(100_000))


async def test_open_with_unwritable_file_raises_spec_error(
    tmp_path: Path,
) -> None:
    """No pipe is leaked."""
    async with open_hub() as hub:
        before = open_descriptors()
        with pytest.raises(SpecError, match="stderr: cannot write"):
            hub.hub.open("web.0", stderr=str(tmp_path / "missing" / "log"))
        assert open_descriptors() == before


async def test_tail_continues_over_restarts() -> None:
    """Lines of several children are ordered by time."""
    async with open_hub() as hub:
        for name in "web.0", "web.1", "web.0":
            process_output = hub.hub.open(name)
            await run_python(f"print({name!r})", process_output)
        entries = hub.hub.tail(None, 9)
        assert [entry["name"] for entry in entries] == ["web.0", "web.1", "web.0"]
        assert entries[0]["pid"] != entries[2]["pid"]
        assert entries[1:] == hub.hub.tail(["web.0", "web.1"], 2)
        assert [e["name"] for e in hub.hub.tail(["web.1", "nobody"], 9)] == ["web.1"]
        assert len(process_output.last_lines(9)) == 1
        hub.hub.forget("web.0")
        assert [entry["name"] for entry in hub.hub.tail(None, 9)] == ["web.1"]


async def test_subscriber_gets_each_line_once() -> None:
    """Only lines of the selected children."""
    async with open_hub() as hub:
        with hub.hub.subscribe(["web.1"]) as lines:
            for name in "web.0", "web.1":
                await run_python(MUCH, hub.hub.open(name), "1000")
            seen: list[int] = []
            while len(seen) < 1000:
                batch = await anext(lines)
                assert batch.missed == 0
                assert {entry["name"] for entry in batch.entries} == {"web.1"}
                seen += [int(str(entry["message"])) for entry in batch.entries]
        assert seen == list(range(1000))


async def test_slow_subscriber_gets_count_of_missed_lines() -> None:
    """The oldest lines are missed; the others are in order."""
    async with open_hub() as hub:
        with hub.hub.subscribe(None) as lines:
            await run_python(MUCH, hub.hub.open("web.0"), "100000")
            due = 0
            while due < 100_000:
                batch = await anext(lines)
                due += batch.missed
                for entry in batch.entries:
                    assert int(str(entry["message"])) == due
                    due += 1
            assert batch.missed < 100_000


async def test_subscription_ends_with_the_hub() -> None:
    """After the last line."""
    messages: list[object] = []

    async def follow(lines: Subscription) -> None:
        async for batch in lines:
            messages.extend(entry["message"] for entry in batch.entries)

    async with trio.open_nursery() as nursery, open_hub() as hub:
        nursery.start_soon(follow, hub.hub.subscribe(None))
        await run_python("print('x')", hub.hub.open("web.0"))
    assert messages == ["x"]


async def test_last_output_is_written_before_the_hub_ends() -> None:
    """All of it, although it was not read before; no descriptor is leaked."""
    with open_destination() as (destination, reading):
        before = open_descriptors()
        async with (
            trio.open_nursery() as nursery,
            open_output_hub(stdout=destination, stderr=destination) as hub,
        ):
            await run_python(MUCH, hub.open("web.0"), "3000")
            nursery.start_soon(read_until, reading, b"2999\n")
        assert open_descriptors() == before


async def test_output_never_started_leaks_nothing() -> None:
    """For example if its program could not be started."""
    async with open_hub() as hub:
        before = open_descriptors()
        with hub.hub.open("web.0") as output:
            assert output.last_lines(9) == []
        output.close()
        assert open_descriptors() == before


async def test_pipes_are_read_during_shutdown() -> None:
    """A child that prints more than a pipe can hold must not block."""
    with trio.CancelScope() as scope:
        async with open_hub() as hub:
            scope.cancel()
            with trio.CancelScope(shield=True):
                output = hub.hub.open("web.0", stdout="/dev/null")
                assert await run_python(MUCH, output, "20000") == 0
                assert int(output.last_lines(1)[0].text) == 19_999


OWN = """
import os, sys, trio
from trio_supervisor.process.output.hub import open_output_hub
from tests.kits.output import run_python

async def main():
    async with open_output_hub() as hub:
        await run_python("import os; os.write(1, b'out'); os.write(2, b'err')",
                         hub.open("w"))

trio.run(main)
"""


async def test_default_destinations_are_standard_streams() -> None:
    done = await trio.run_process(
        [sys.executable, "-c", OWN], capture_stdout=True, capture_stderr=True
    )
    assert done.stdout == b"w            | out\n"
    assert done.stderr == b"w            | err\n"


async def test_same_file_for_both_streams_uses_one_queue() -> None:
    """Otherwise the order of lines could change."""
    program = (
        "from trio_supervisor.process.output.console import open_console\n"
        "raise SystemExit(len(open_console('text', None, None).destinations))\n"
    )
    with open_pipe() as (_, one), open_pipe() as (_, other):
        for stderr, count in (one, 1), (other, 2):
            done = await trio.run_process(
                [sys.executable, "-c", program], stdout=one, stderr=stderr, check=False
            )
            assert done.returncode == count


async def test_closed_standard_stream_number_is_not_written_to(
    tmp_path: Path,
) -> None:
    """The number may be reused for another file."""
    program = OWN.replace("    async with", "    os.close(1)\n    async with").replace(
        "        await", "        file = open(sys.argv[1], 'w')\n        await"
    )
    path = tmp_path / "file"
    await trio.run_process(
        [sys.executable, "-c", program, str(path)],
        capture_stdout=True,
        capture_stderr=True,
    )
    assert path.read_bytes() == b""
