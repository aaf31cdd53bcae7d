"""Start a fork server, and what is said to it.

Standard library only: the server is started before its controller loads anything else.
These types are not in `fork_server`, which runs as ``__main__``: a child that unpickles
one would import that module a second time.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from trio_supervisor.process.imports.import_watch import open_report
from trio_supervisor.process.kernel import reap_group
from trio_supervisor.process.spawn.code_source import Pickled, Reference
from trio_supervisor.process.spawn.documents import interpreter_flags, open_document

# Room in its argv for titles: see fork_server.set_title.
_PADDING: Final = "-" * 80
MODULES: Final = (
    "trio_supervisor.worker.main",
    "trio_supervisor.supervisor.main",
)
"""What the children of a fork server need."""
PRELOAD: Final = "trio_supervisor.process.spawn.preload:preload"
WARM_UP: Final = "trio_supervisor.worker.main:warm_up"
FAILED: Final = b"e"
"""A server's message that it cannot go on for lack of resources: errno, and words."""
DECLARED: Final = b"d"
"""Message of a server whose import has finished, with a file: `imports.declaration`."""
STANDBY: Final = b"t"
"""A server's message, with a twin's number and control socket; and the controller's
when it has lost the twin."""
WAKE: Final = b"k"
"""The controller's message to a twin: it is the server from now on."""


class PreloadPlan(NamedTuple):
    """What a server does before it serves."""

    title: str
    modules: tuple[str, ...]
    """To import: what the children's entries need."""
    preload: str
    """``module:function``, called with *argument*; returns a list of problems, and
    what is to be answered: see `declare.answer`."""
    argument: Any
    warm_up: str
    """``module:function``, called without arguments in each spare."""
    is_early: bool = False
    """Whether it dies with the thread that started it, which is a main thread: while
    it imports, it cannot see that its controller is gone."""


class ForkSpec(NamedTuple):
    """What a child is to become."""

    entry: str
    """``module:function``, called with *boot* and the other descriptors."""
    environment: dict[str, str]
    title: str
    """Of the process, for ps and top."""
    boot: Any
    has_streams: bool = False
    """Whether the first two descriptors are its standard output and error."""
    runs_application: bool = True
    """Whether it is to find all that the import has changed: signals, limits …"""


class ForkServerPlan(NamedTuple):
    """How a server is started."""

    plan: PreloadPlan
    environment: Mapping[str, str]


class StartedServer(NamedTuple):
    """A server that was started."""

    process_id: int
    control: socket.socket
    """Requests go here. Closing it ends the server."""
    report: int
    """A file that says where its import is; see `import_watch`."""

    def close(self) -> None:
        """Give back both."""
        self.control.close()
        os.close(self.report)


class EarlyServer:
    """A server that was started before its controller.

    Args:
        marker: What it, and so each child, has in its environment.
    """

    def __init__(self, marker: str, started: StartedServer) -> None:
        self.marker = marker
        self._started: StartedServer | None = started

    def adopt(self) -> StartedServer | None:
        """Return the server, once; it is the caller's to end and to reap."""
        started, self._started = self._started, None
        return started

    def put_back(self, started: StartedServer) -> None:
        """Have the next one adopt the server again."""
        self._started = started


def kill_server(started: StartedServer) -> int:
    """End a server that is not needed, in the middle of an import if need be.

    Return what it exited with, where it had ended already, and else -SIGKILL.
    """
    started.close()
    # Not reaped before: until then the number of its group is its own.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(started.process_id, signal.SIGKILL)
    try:
        _, status = os.waitpid(started.process_id, 0)
    except ChildProcessError:
        return -signal.SIGKILL
    finally:
        reap_group(started.process_id)
    return os.waitstatus_to_exitcode(status)


def start_fork_server(plan: ForkServerPlan) -> StartedServer:
    """Start a server in a process group of its own; it is the caller's to reap.

    Raises:
        OSError: it cannot be started.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    report = -1
    try:
        report = open_report()
        with theirs, open_document(pickle.dumps(plan.plan)) as document:
            process = subprocess.Popen(
                [
                    sys.executable,
                    *interpreter_flags(),
                    "-m",
                    "trio_supervisor.process.spawn.fork_server",
                    str(theirs.fileno()),
                    str(document),
                    str(report),
                    _PADDING,
                ],
                env={**plan.environment, "SPT_NOENV": "1"},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), document, report],
                process_group=0,
            )
    except BaseException:
        ours.close()
        if report >= 0:
            os.close(report)
        raise
    process.returncode = 0  # not Popen's to reap: see spawn_exec
    ours.setblocking(False)
    return StartedServer(process.pid, ours, report)


def fork_server_plan(
    title: str,
    sources: Sequence[Reference | Pickled],
    environment: Mapping[str, str],
    *,
    is_early: bool = False,
) -> ForkServerPlan:
    """Return how a server that loads *sources* is started.

    Args:
        title: Of the application.
        environment: Of all children, and so the server's own.
        is_early: See `PreloadPlan`.
    """
    plan = PreloadPlan(
        title=f"fork server ({title})",
        modules=MODULES,
        preload=PRELOAD,
        argument=list(sources),
        warm_up=WARM_UP,
        is_early=is_early,
    )
    return ForkServerPlan(plan, environment)
