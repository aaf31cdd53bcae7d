"""Start a program in a process group of its own."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence

import trio

from trio_supervisor.process.child import ChildProcess


async def spawn_exec(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: str | None = None,
    inherit: Sequence[int] = (),
    new_session: bool = False,
) -> ChildProcess:
    """Start *command* and return its process, which the caller has to stop.

    Standard input is /dev/null (a process in a background group that reads a terminal
    would be stopped by it); standard output and error are ours. A cancellation comes
    before or after: a process that was started is always returned.

    Args:
        inherit: Descriptors that it keeps, under the same numbers; no other.
        new_session: Whether it leads a session, too.

    Raises:
        OSError: the program cannot be started: not found, not executable …
    """

    def start() -> ChildProcess:
        # A child inherits the signal mask of the thread that starts it.
        old = signal.pthread_sigmask(signal.SIG_SETMASK, ())
        try:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                pass_fds=inherit,
                start_new_session=new_session,
                process_group=None if new_session else 0,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)
        # ChildProcess reaps it. A Popen that thinks otherwise would poll for it when
        # collected, and steal the exit status.
        process.returncode = 0
        return ChildProcess(process.pid)

    # In a thread, for exec reads the program from a disk that may be slow.
    return await trio.to_thread.run_sync(start)
