"""Starting real programs: their surroundings, and errors of those that cannot start."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_supervisor.process.kernel import child_pids
from trio_supervisor.process.spawn.exec import spawn_exec

# Prints its own state; /proc/self/fd also lists the descriptor of that directory.
_PROGRAM = """
import json, os, signal, socket, sys
def address(fd):
    try:
        return socket.socket(fileno=fd).getsockname()
    except OSError:
        return None
here = sorted(int(fd) for fd in os.listdir("/dev/fd"))
open_ones = []
for fd in here:
    try:
        os.fstat(fd)
    except OSError:
        continue
    open_ones.append(fd)
sys.stdout.write(json.dumps({
    "pid": os.getpid(), "group": os.getpgrp(), "session": os.getsid(0),
    "arguments": sys.argv[1:],
    "directory": os.getcwd(), "environment": dict(os.environ), "descriptors": open_ones,
    "addresses": [address(fd) for fd in open_ones if fd > 2],
    "ignores": [s for s in ("SIGPIPE", "SIGXFSZ", "SIGINT", "SIGTERM")
                if signal.getsignal(getattr(signal, s)) == signal.SIG_IGN],
    "mask": list(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
}))
"""


def program(*arguments: str) -> list[str]:
    """Return the command of a Python program that prints its own state."""
    return [sys.executable, "-I", "-S", "-c", _PROGRAM, *arguments]


async def output(
    command: list[str],
    *,
    environment: Mapping[str, str] = os.environ,
    directory: str | None = None,
    listen: Mapping[str, int] | None = None,
    new_session: bool = False,
    prepare: Callable[[int], None] | None = None,
) -> tuple[int, bytes]:
    """Run *command* to its end; return its pid and output."""
    read, write = os.pipe()
    with open(read, "rb") as reader:  # noqa: ASYNC230 (a pipe)
        try:
            process = await spawn_exec(
                command,
                environment=environment,
                directory=directory,
                listen=listen,
                stdout=write,
                new_session=new_session,
                prepare=prepare,
            )
        finally:
            os.close(write)
        with trio.fail_after(30):
            said = await trio.to_thread.run_sync(reader.read)
            assert await process.wait() == 0
        process.close()
    return process.pid, said


async def report(**options: Any) -> dict[str, Any]:
    """Run the program that prints its state; return the state."""
    process_id, said = await output(program("one", "two words"), **options)
    found: dict[str, Any] = json.loads(said)
    assert found["pid"] == process_id
    return found


@contextmanager
def listening(count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
            sock.listen()
        yield sockets


def named(sockets: list[socket.socket]) -> dict[str, int]:
    return {f"name{i}": sock.fileno() for i, sock in enumerate(sockets)}


def descriptors() -> set[str]:
    """Return the open descriptors of this process."""
    return set(os.listdir("/dev/fd"))


both_ways = pytest.mark.parametrize("count", [0, 1], ids=["plain", "with a socket"])


@pytest.mark.parametrize("count", [1, 2, 8, 30])
async def test_spawn_exec_passes_sockets_from_descriptor_three_on(count: int) -> None:
    """Also with two-digit numbers, which differ from the numbers in this process."""
    with listening(count) as sockets:
        backwards = dict(reversed(named(sockets).items()))
        found = await report(listen=backwards)
        assert found["addresses"][:count] == [
            list(sock.getsockname()) for sock in reversed(sockets)
        ]
        # One more: the descriptor of the listed directory.
        assert set(found["descriptors"]) <= set(range(3 + count))
        assert found["environment"]["LISTEN_FDS"] == str(count)
        assert found["environment"]["LISTEN_FDNAMES"] == ":".join(backwards)
        assert found["environment"]["LISTEN_PID"] == str(found["pid"])


async def test_spawn_exec_sockets_with_swapped_numbers() -> None:
    """Their numbers here are those that the other one gets in the program."""
    script = """
import os, socket, sys, trio
from trio_supervisor.process.spawn.exec import spawn_exec
os.closerange(3, 20)
a, b, c = (socket.create_server(("127.0.0.1", 0)) for _ in range(3))
assert [a.fileno(), b.fileno(), c.fileno()] == [3, 4, 5], [a, b, c]
async def main():
    process = await spawn_exec(
        [sys.executable, "-c", "import socket, sys\\n"
         "print(*[socket.socket(fileno=fd).getsockname()[1] for fd in (3, 4, 5)])"],
        environment=os.environ, listen={"c": 5, "a": 3, "b": 4})
    assert await process.wait() == 0
print(*[s.getsockname()[1] for s in (c, a, b)], flush=True)
trio.run(main)
"""
    done = await trio.to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, check=True
        )
    )
    ours, theirs = done.stdout.splitlines()
    assert ours == theirs


async def test_spawn_exec_socket_with_two_names() -> None:
    with listening(1) as [sock]:
        number = sock.fileno()
        found = await report(listen={"http": number, "metrics": number})
        assert found["addresses"][:2] == 2 * [list(sock.getsockname())]


async def test_spawn_exec_with_sockets_keeps_environment_exactly() -> None:
    """A shell would drop and add variables; Python adds one in the C locale."""
    environment = {
        "PATH": os.environ["PATH"],
        "my.property-1": "dots",
        "EMPTY": "",
        "LINES": "a\nb",
        "BYTES": "\udcff",
        "PYTHONPATH": "/nowhere",
    }
    with listening(1) as [sock]:
        process_id, said = await output(
            ["env", "-0"], environment=environment, listen={"web": sock.fileno()}
        )
    found = dict(os.fsdecode(line).split("=", 1) for line in said.split(b"\0") if line)
    expected = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
    assert found == {**environment, **expected, "LISTEN_PID": str(process_id)}


@pytest.mark.parametrize("locale", [None, "C", "C.UTF-8"])
async def test_spawn_exec_with_sockets_keeps_locale(locale: str | None) -> None:
    environment = {"PATH": os.environ["PATH"]}
    if locale is not None:
        environment["LC_CTYPE"] = locale
    with listening(1) as [sock]:
        _, said = await output(
            ["env"], environment=environment, listen={"web": sock.fileno()}
        )
    lines = [line for line in said.decode().splitlines() if line.startswith("LC_")]
    assert lines == ([] if locale is None else [f"LC_CTYPE={locale}"])


@both_ways
async def test_spawn_exec_sets_directory_group_and_signals(
    tmp_path: Path, count: int
) -> None:
    """With and without sockets: own group, empty mask, no ignored signals."""
    with listening(count) as sockets:
        found = await report(
            directory=str(tmp_path),
            listen=named(sockets),
        )
    assert found["directory"] == os.fspath(tmp_path)
    assert found["group"] == found["pid"] != found["session"]
    assert found["arguments"] == ["one", "two words"]
    # The Python program itself ignores these two.
    assert found["ignores"] == ["SIGPIPE", "SIGXFSZ"]
    assert found["mask"] == []


@both_ways
async def test_spawn_exec_resets_sigpipe_and_sigxfsz(count: int) -> None:
    """Otherwise ``yes | head`` in the user's program would never end."""
    with listening(count) as sockets:
        _, said = await output(
            ["grep", "SigIgn", "/proc/self/status"],
            listen=named(sockets),
        )
    assert int(said.split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0
    assert int(said.split()[1], 16) & (1 << (signal.SIGXFSZ - 1)) == 0


@both_ways
async def test_spawn_exec_new_session(count: int) -> None:
    with listening(count) as sockets:
        found = await report(new_session=True, listen=named(sockets))
    assert found["session"] == found["group"] == found["pid"]


@both_ways
async def test_spawn_exec_inherits_no_other_descriptor(count: int) -> None:
    """Not even one that is inheritable in this process."""
    with listening(count) as sockets, socket.socket() as other:
        other.set_inheritable(True)
        found = await report(listen=named(sockets))
    # The last one is that of the listed directory.
    assert found["descriptors"] == list(range(3 + count))


@both_ways
async def test_spawn_exec_redirects_output_and_errors(
    tmp_path: Path, count: int
) -> None:
    out, err = (os.open(tmp_path / n, os.O_WRONLY | os.O_CREAT) for n in ("out", "err"))
    with listening(count) as sockets:
        process = await spawn_exec(
            ["sh", "-c", "echo output; echo error >&2; cat"],
            environment=os.environ,
            listen=named(sockets),
            stdout=out,
            stderr=err,
        )
    os.close(out)
    os.close(err)
    with trio.fail_after(30):
        assert await process.wait() == 0  # its standard input is empty
    process.close()
    assert (tmp_path / "out").read_text() == "output\n"
    assert (tmp_path / "err").read_text() == "error\n"


@both_ways
@pytest.mark.parametrize(
    ("name", "number"),
    [
        pytest.param("no-such-program-anywhere", errno.ENOENT, id="not on PATH"),
        pytest.param("/no/such/program", errno.ENOENT, id="no such path"),
        pytest.param("{directory}/plain", errno.EACCES, id="not executable"),
        pytest.param("{directory}/script", errno.ENOENT, id="no such interpreter"),
        pytest.param("{directory}/garbage", errno.ENOEXEC, id="not a program"),
        pytest.param("{directory}", errno.EACCES, id="a directory"),
    ],
)
async def test_spawn_exec_unexecutable_program_raises_error_with_name(
    tmp_path: Path, count: int, name: str, number: int
) -> None:
    """The error is immediate; no process and no descriptor is left behind."""
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    for file, text in [("script", "#!/no/such/shell\n"), ("garbage", "\1\2\3")]:
        (tmp_path / file).write_text(text)
        (tmp_path / file).chmod(stat.S_IRWXU)
    program = name.format(directory=tmp_path)
    with listening(count) as sockets:
        before, children = descriptors(), child_pids()
        with pytest.raises(OSError, match=program) as caught:
            await spawn_exec(
                [program],
                environment=os.environ,
                listen=named(sockets),
            )
        assert caught.value.errno == number
        assert descriptors() == before
        assert child_pids() == children


@both_ways
async def test_spawn_exec_searches_path_of_the_program(
    tmp_path: Path, count: int
) -> None:
    """The PATH of the controller does not count."""
    (tmp_path / "own-program").write_text("#!/bin/sh\necho found\n")
    (tmp_path / "own-program").chmod(stat.S_IRWXU)
    with listening(count) as sockets:
        _, said = await output(
            ["own-program"],
            environment={"PATH": str(tmp_path)},
            listen=named(sockets),
        )
    assert said == b"found\n"


@both_ways
async def test_spawn_exec_missing_directory_is_named(count: int) -> None:
    missing = "/no/such/directory"
    with listening(count) as sockets, pytest.raises(FileNotFoundError, match=missing):
        await spawn_exec(
            ["true"],
            environment=os.environ,
            directory=missing,
            listen=named(sockets),
        )


async def test_spawn_exec_with_sockets_leaks_no_descriptor() -> None:
    with listening(3) as sockets:
        before = descriptors()
        await report(listen=named(sockets))
        assert descriptors() == before
        assert not any(sock.get_inheritable() for sock in sockets)


async def test_spawn_exec_listen_with_inherit_raises_value_error() -> None:
    """An inherited descriptor may have the number that a socket has to get."""
    with listening(1) as [sock], pytest.raises(ValueError, match="inherit"):
        await spawn_exec(
            ["true"],
            environment=os.environ,
            inherit=[sock.fileno()],
            listen={"web": sock.fileno()},
        )


def in_ascii(text: str | bytes) -> bytes:
    """Encode as `os.fsencode` does in the C locale."""
    return text if isinstance(text, bytes) else text.encode("ascii", "surrogateescape")


async def test_encoded_text_not_in_locale_is_utf8(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bytes that were read from the system come back unchanged."""
    monkeypatch.setattr(os, "fsencode", in_ascii)
    environment = {"WORD": "čau"}
    _, printed = await output(
        ["/bin/sh", "-c", 'printf "%s %s" "$WORD" "$1"', "→", "caf\udcff"],
        environment=environment,
    )
    assert printed == "čau caf".encode() + b"\xff"


@pytest.mark.parametrize("word", ["a\0b", "\ud800"], ids=["NUL", "lone surrogate"])
async def test_encoded_nul_or_surrogate_raises_os_error(word: str) -> None:
    with pytest.raises(OSError, match=r"a NUL character|a lone surrogate"):
        await output(["/bin/echo", word])
    with pytest.raises(OSError, match=r"a NUL character|a lone surrogate"):
        await output(["/bin/echo"], environment={"A": word})


@pytest.mark.parametrize("default_timeout", [None, 5.0])
async def test_prepare_is_called_before_the_program_runs(
    default_timeout: float | None,
) -> None:
    def prepare(process_id: int) -> None:
        os.setpriority(os.PRIO_PROCESS, process_id, 7)

    socket.setdefaulttimeout(default_timeout)
    try:
        _, said = await output(
            [sys.executable, "-c", "import os; print(os.nice(0))"], prepare=prepare
        )
    finally:
        socket.setdefaulttimeout(None)
    assert said == b"7\n"


async def test_program_whose_prepare_fails_does_not_run(tmp_path: Path) -> None:
    """And leaves neither a process nor a descriptor."""

    def prepare(process_id: int) -> None:
        raise PermissionError(errno.EACCES, "not allowed")

    before, children = descriptors(), child_pids()
    with pytest.raises(PermissionError, match="not allowed"):
        await output(["touch", str(tmp_path / "ran")], prepare=prepare)
    assert not (tmp_path / "ran").exists()
    assert (descriptors(), child_pids()) == (before, children)


async def test_prepare_of_a_missing_program_hides_no_error() -> None:
    with pytest.raises(FileNotFoundError, match="/no/such/program"):
        await output(["/no/such/program"], prepare=lambda _: None)


async def test_program_killed_while_it_is_prepared_has_ended() -> None:
    """Not an error of the start: it may happen a moment later as well."""
    process = await spawn_exec(
        ["sleep", "60"],
        environment=os.environ,
        prepare=lambda process_id: os.kill(process_id, signal.SIGKILL),
    )
    with trio.fail_after(10):
        assert await process.wait() == -signal.SIGKILL
    process.close()
