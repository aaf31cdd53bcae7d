"""Fork a standby of the fork server, which takes over when the server is killed.

It has the same memory, so nothing is imported again: the files may have changed.
"""

from __future__ import annotations

import posix
from contextlib import suppress
from socket import send_fds, socket

from trio_supervisor.process.spawn.fork_server_protocol import STANDBY
from trio_supervisor.process.spawn.forked_child import fork, socket_pair


def fork_standby(control: socket) -> socket | None:
    """Fork a standby, and send its control socket to the controller through *control*.

    Like every child it is forked twice, so that it becomes a child of the controller.

    Returns:
        In the standby, its control socket; in the server, None.

    Raises:
        OSError: the limit of descriptors or processes is reached.
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
        with suppress(ChildProcessError):  # SIGCHLD is ignored: the kernel reaped it
            posix.waitpid(pid, 0)
        return None
    try:
        standby = fork()
        if standby == 0:
            ours.close()
            posix.setpgid(0, 0)
            return theirs
        posix.setpgid(standby, standby)
        send_fds(control, [STANDBY + str(standby).encode()], [ours.fileno()])
    except OSError:
        pass  # it exits when its control socket is closed here
    posix._exit(0)
