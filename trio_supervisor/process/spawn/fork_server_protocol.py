"""Start a fork server; define the messages between server and controller.

Standard library only: the server is started before the controller loads anything else.
These types are not in `fork_server`, which runs as ``__main__``: a child that unpickled
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

# Space in its argv for process titles: see `forked_child.set_title`.
_PADDING: Final = "-" * 80
MODULES: Final = (
    "trio_supervisor.worker.main",
    "trio_supervisor.supervisor.main",
)
"""Modules that the children of a fork server need."""
PRELOAD: Final = "trio_supervisor.process.spawn.preload:preload"
WARM_UP: Final = "trio_supervisor.worker.rehearsal:rehearse"
FAILED: Final = b"e"
"""From a server that exits for lack of resources: errno and message."""
DECLARED: Final = b"d"
"""From a server that has finished its import, with a file: `imports.declaration`."""
STANDBY: Final = b"t"
"""From a server: pid and control socket of its standby. From the controller: the
standby is lost, fork another."""
WAKE: Final = b"k"
"""From the controller to a standby: it is the server from now on."""


class PreloadPlan(NamedTuple):
    """What a server does before it serves requests."""

    title: str
    modules: tuple[str, ...]
    """Modules to import, which the entries of the children need."""
    preload: str
    """``module:function``, called with *argument*; returns `Preloaded`."""
    argument: Any
    warm_up: str
    """``module:function``, called without arguments in each preforked child."""
    is_early: bool = False
    """Whether it is killed with the thread that started it, which is a main thread:
    during the import it cannot notice that its controller is gone."""
    is_immortal: bool = False
    """Whether what was preloaded is made immortal, if the sources do not say so."""


class Preloaded(NamedTuple):
    """What the ``preload`` function of a plan returns."""

    problems: list[str]
    """Sources that could not be loaded, as text."""
    answer: bytes | None
    """The answer to the controller, see `declaration_answer`; None: no source names an
    application."""
    is_immortal: bool = False
    """Whether the application wants what was preloaded to be made immortal."""


class ForkSpec(NamedTuple):
    """What a forked child has to run."""

    entry: str
    """``module:function``, called with *boot* and the other descriptors."""
    environment: dict[str, str]
    title: str
    """Process title, for ps and top."""
    boot: Any
    has_streams: bool = False
    """Whether the first two descriptors are its standard output and error."""
    has_stdin: bool = False
    """Whether a descriptor of its standard input comes before these."""
    runs_application: bool = True
    """Whether the changes of the import (signals, limits …) apply to it."""
    own: str = ""
    """What the child sets itself: see `exec_wrapper.take_settings`."""


class ForkServerPlan(NamedTuple):
    """How a server is started."""

    plan: PreloadPlan
    environment: Mapping[str, str]
    owner: tuple[int, int, tuple[int, ...]] | None = None
    """Its user, group and supplementary groups; None: those of this process. It becomes
    this user before it executes anything, so it has none of this process's memory."""


class StartedServer(NamedTuple):
    """A server process and its connections."""

    process_id: int
    control: socket.socket
    """Requests go here. Closing it makes the server exit."""
    report: int
    """File with the progress of its import; see `import_watch`."""

    def close(self) -> None:
        """Close socket and report."""
        self.control.close()
        os.close(self.report)


class EarlyServer:
    """A server that was started before its controller.

    Args:
        marker: Marker variable in its environment, and so in that of each child.
    """

    def __init__(self, marker: str, started: StartedServer) -> None:
        self.marker = marker
        self._started: StartedServer | None = started

    def adopt(self) -> StartedServer | None:
        """Return the server, once; the caller has to stop and reap it."""
        started, self._started = self._started, None
        return started

    def put_back(self, started: StartedServer) -> None:
        """Let the next caller adopt the server again."""
        self._started = started


def kill_server(started: StartedServer) -> int:
    """Kill a server that is not needed, even during its import, and its group.

    Return its exit status if it had exited already, else -SIGKILL.
    """
    started.close()
    # Before it is reaped: until then its group number cannot be reused.
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
    """Start a server in its own process group; the caller has to reap it.

    Raises:
        OSError: it cannot be started.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    report = -1
    user, group, groups = plan.owner or (None, None, None)
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
                user=user,
                group=group,
                extra_groups=groups,
            )
    except BaseException:
        ours.close()
        if report >= 0:
            os.close(report)
        raise
    process.returncode = 0  # Popen must not reap it: see `spawn_exec`
    ours.setblocking(False)
    return StartedServer(process.pid, ours, report)


def fork_server_plan(
    title: str,
    sources: Sequence[Reference | Pickled],
    environment: Mapping[str, str],
    *,
    is_early: bool = False,
    is_immortal: bool = False,
    owner: tuple[int, int, tuple[int, ...]] | None = None,
) -> ForkServerPlan:
    """Return the plan of a server that loads *sources*.

    Args:
        title: Name of the application.
        environment: Environment of the server and of all its children.
        is_early: See `PreloadPlan`.
        is_immortal: See `PreloadPlan`.
        owner: See `ForkServerPlan`.
    """
    plan = PreloadPlan(
        title=f"fork server ({title})",
        modules=MODULES,
        preload=PRELOAD,
        argument=list(sources),
        warm_up=WARM_UP,
        is_early=is_early,
        is_immortal=is_immortal,
    )
    return ForkServerPlan(plan, environment, owner)
