"""Fork a parked copy of the fork server, which takes over when that is killed.

It has the same memory, so nothing is imported again: the files may have changed since.
"""

from __future__ import annotations

import posix
from contextlib import suppress
from socket import send_fds, socket

from trio_supervisor.process.spawn.fork_server_protocol import STANDBY
from trio_supervisor.process.spawn.forked_child import fork, socket_pair


def fork_standby(control: socket) -> socket | None:
    """Fork a twin, and hand its control socket to the controller, through *control*.

    Like every child it is forked twice, and so becomes the controller's own.

    Returns:
        In the twin, its control socket; None: this is the server itself.

    Raises:
        OSError: there are no descriptors, or no processes.
    """
    ours, theirs = socket_pair()
    try:
        pid = fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid:
        ours.close()
        theirs.close()
        with suppress(ChildProcessError):  # SIGCHLD is ignored: it was reaped
            posix.waitpid(pid, 0)
        return None
    try:
        twin = fork()
        if twin == 0:
            ours.close()
            posix.setpgid(0, 0)
            return theirs
        posix.setpgid(twin, twin)
        send_fds(control, [STANDBY + str(twin).encode()], [ours.fileno()])
    except OSError:
        pass  # it ends when its control socket is closed here
    posix._exit(0)
