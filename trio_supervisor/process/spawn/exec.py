"""Start a program in a process group of its own."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Final

from attrs import evolve, frozen

from trio_supervisor.process.child import ChildProcess
from trio_supervisor.process.spawn import exec_wrapper
from trio_supervisor.process.spawn.refused import AttributeRefusedError
from trio_supervisor.process.spawn.signal_dispositions import ignored_signals
from trio_supervisor.process.threads import run_in_thread

# A dead child must not kill this process if it has the default action of SIGPIPE.
_NO_SIGNAL: Final = getattr(socket, "MSG_NOSIGNAL", 0)

# Capabilities that settings of `exec_wrapper` need.
_NEEDED: Final = {"user": "CAP_SETUID", "private_tmp": "CAP_SYS_ADMIN"}


async def spawn_exec(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: str | None = None,
    inherit: Sequence[int] = (),
    listen: Mapping[str, int] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
    stderr: int | None = None,
    new_session: bool = False,
    prepare: Callable[[int], None] | None = None,
    own: str = "",
) -> ChildProcess:
    """Start *command* and return its process, which the caller has to stop.

    It starts with an empty signal mask and the default disposition of every signal. If
    this process ignores a signal, it is started through `exec_wrapper`, which costs
    15 ms.

    Standard input is /dev/null by default, since a process in a background group that
    reads from the terminal is stopped (SIGTTIN). A cancellation takes effect before or
    after the start: a process that was started is always returned.

    Args:
        inherit: Descriptors that it inherits, under the same numbers; no others.
        listen: Sockets by name, passed as in sd_listen_fds(3): from descriptor 3 on,
            in order. Cannot be combined with *inherit*.
        stdout: Its standard output; None: inherited.
        stderr: Its standard error; None: inherited.
        new_session: Whether it also becomes the leader of a session.
        prepare: Called in a thread with the process id before the program runs, for
            what must hold from its first instruction on. Uses `exec_wrapper`.
        own: What the process sets itself before the program runs: see
            `exec_wrapper.take_settings`.

    Raises:
        AttributeRefusedError: the system refuses one of *own*.
        OSError: the program cannot be started: not found, not executable, an argument
            or a variable with a NUL character …
    """
    launch = _Launch(
        command=command,
        environment=environment,
        directory=directory,
        inherit=inherit,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        new_session=new_session,
    )
    # In a thread: exec reads the program from a disk that may be slow.
    if not (listen or prepare or own or ignored_signals()):
        return await run_in_thread(launch.start)
    if listen and inherit:
        raise ValueError("listen cannot be combined with inherit")
    return await run_in_thread(_start_by_wrapper, launch, listen or {}, prepare, own)


@frozen(kw_only=True)
class _Launch:
    """The parameters of one process start."""

    command: Sequence[str]
    environment: Mapping[str, str]
    directory: str | None
    inherit: Sequence[int]
    stdin: int
    stdout: int | None
    stderr: int | None
    new_session: bool

    def start(self) -> ChildProcess:
        # A child inherits the signal mask of the thread that starts it.
        old = signal.pthread_sigmask(signal.SIG_SETMASK, ())
        try:
            process = subprocess.Popen(
                [encoded(word) for word in self.command],
                env={
                    encoded(name): encoded(value)
                    for name, value in self.environment.items()
                },
                cwd=None if self.directory is None else encoded(self.directory),
                stdin=self.stdin,
                stdout=self.stdout,
                stderr=self.stderr,
                pass_fds=self.inherit,
                start_new_session=self.new_session,
                process_group=None if self.new_session else 0,
            )
        except OSError as exc:
            if isinstance(exc.filename, bytes):  # for a readable message
                exc.filename = os.fsdecode(exc.filename)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)
        # ChildProcess reaps it. Without a returncode, Popen's finalizer would poll it
        # and steal the exit status.
        process.returncode = 0
        return ChildProcess(process.pid)


def encoded(text: str) -> bytes:
    """Return *text* (an argument, a variable or a path) as bytes for the system.

    In the file system encoding, so that a name read by Python is passed on unchanged;
    in UTF-8 if that encoding, such as ASCII in the C locale, lacks a character.

    Raises:
        OSError: it contains a NUL character or a lone surrogate.
    """
    if "\0" in text:
        raise OSError(errno.EINVAL, "contains a NUL character", text)
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        pass
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        raise OSError(errno.EILSEQ, "contains a lone surrogate", text) from exc


def _start_by_wrapper(
    launch: _Launch,
    listen: Mapping[str, int],
    prepare: Callable[[int], None] | None,
    own: str,
) -> ChildProcess:
    """Start it through `exec_wrapper`, and wait until that has executed the program."""
    with ExitStack() as stack:
        ours, theirs = map(stack.enter_context, socket.socketpair())
        theirs.setblocking(True)  # even if socket.setdefaulttimeout() was called
        reading, writing = os.pipe()
        report = stack.enter_context(open(reading, "rb"))
        try:
            process = _by_wrapper(launch, listen, own, writing, theirs.fileno()).start()
        finally:
            os.close(writing)
        theirs.close()
        try:
            if prepare is not None:
                prepare(process.pid)
        except BaseException:
            ours.close()  # the wrapper exits without executing the program
            _reap(process)
            raise
        with suppress(OSError):  # it was killed
            ours.send(b"g", _NO_SIGNAL)
        problem = report.read()
    if not problem:
        return process
    _reap(process)
    number, _, option = problem.decode().partition(" ")
    reason = os.strerror(int(number))
    name, _, _ = option.partition("=")
    path = launch.directory if name == "directory" else launch.command[0]
    if int(number) == errno.EPERM and name in _NEEDED:
        reason += f" (needs {_NEEDED[name]})"
    if option and name != "directory":
        raise AttributeRefusedError(name, option, reason)
    if int(number) == errno.EACCES and (user := _user_in(own)):
        reason = f"{reason} for user {user}"
    raise OSError(int(number), reason, path)


def _user_in(own: str) -> str:
    """Return the user that the settings *own* name; empty: none."""
    for word in own.split():
        name, _, value = word.partition("=")
        if name == "user":
            return value.partition(":")[0]
    return ""


def _reap(process: ChildProcess) -> None:
    os.waitpid(process.pid, 0)
    process.close()


def _by_wrapper(
    launch: _Launch,
    listen: Mapping[str, int],
    own: str,
    report: int,
    permission: int,
) -> _Launch:
    environment = dict(launch.environment)
    if listen:
        environment |= {
            "LISTEN_FDS": str(len(listen)),
            "LISTEN_FDNAMES": ":".join(listen),
        }
    locale = environment.get("LC_CTYPE")
    directory = launch.directory
    # -I and -S: ignore the program's environment, and load no installed packages.
    interpreter = [sys.executable, "-I", "-S", exec_wrapper.__file__]
    arguments = [
        str(report),
        str(permission),
        ",".join(map(str, listen.values())),
        "-" if locale is None else f"={locale}",
        own,
        "-" if directory is None or not own else f"={directory}",
    ]
    return evolve(
        launch,
        directory=None if own else directory,
        command=[*interpreter, *arguments, *launch.command],
        environment=environment,
        inherit=[report, permission, *launch.inherit, *listen.values()],
    )
