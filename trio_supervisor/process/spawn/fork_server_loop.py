"""Receive requests of the controller, and fork a child for each.

Each request is one packet with the descriptors of `ForkRequest`. The child itself
answers over the ``reply`` socket of its request, so that it is started exactly once or
not at all:

    child -> controller    its pid
    controller -> child    one byte: start (end-of-file: cancelled, the child exits);
                           it may be followed by attributes that the child has to set

A child is forked twice, so that it becomes a child of the controller, which is a
subreaper: the controller can wait for it, and it outlives this process. Two preforked
children wait for a request, so that a restart after a crash needs no fork.
"""

from __future__ import annotations

import errno
import posix
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from select import POLLIN, poll
from socket import MSG_CTRUNC, recv_fds, send_fds, socket
from typing import Final

from trio_supervisor.process.spawn.fork_server_protocol import STANDBY
from trio_supervisor.process.spawn.forked_child import (
    MAX_DESCRIPTORS,
    ForkRequest,
    ImportState,
    close_on_exec,
    close_request,
    fork,
    run_child,
    set_title,
    socket_pair,
    wait_for_request,
)
from trio_supervisor.process.spawn.standby import fork_standby

# Two, so that a second crash right after the first finds one as well.
_PREFORKED: Final = 2
# Time without requests before a child is preforked [s].
_IDLE: Final = 0.02
# Children that share one intermediate process; all of them wait until it has exited.
_BATCH: Final = 8
_PREFORKED_PID: Final = b"s"


class ForkServer:
    """Serves the requests of one controller.

    An import may replace any function of `os` and `socket` (gevent and proxy libraries
    do), so this class uses those of `posix`, and names imported before the import.
    """

    def __init__(
        self,
        control: socket,
        warm_up: Callable[[], None],
        import_state: ImportState,
        title: str,
    ) -> None:
        self._control = control
        self._warm_up = warm_up
        self._import_state = import_state
        self._title = title
        self._preforked: deque[socket] = deque()
        self._has_standby = False
        self.process_id = posix.getpid()
        """Of the process that is this server."""
        self.is_standby = False
        """Whether it is a standby that has not taken over yet."""

    def serve(self) -> None:
        """Serve requests until the controller is gone."""
        while (requests := self._receive()) is not None:
            if self.is_standby:
                set_title(self._title)
                self.is_standby = False
            self._serve_requests(requests)
            self._prepare()

    def _serve_requests(self, requests: list[ForkRequest]) -> None:
        if not requests:
            return
        if len(requests) == 1 and self._give_to_preforked(requests[0]):
            return
        for first in range(0, len(requests), _BATCH):
            self._fork(requests[first : first + _BATCH], requests)
        for request in requests:
            close_request(request)

    def _prepare(self) -> None:
        """Prefork children and a standby, unless another request comes first."""
        while len(self._preforked) < _PREFORKED:
            # The first one immediately: a process that keeps crashing must find one.
            # The others only after the requested child has had the CPU.
            if self._is_readable(_IDLE if self._preforked else 0.0):
                return
            if not self._prefork():
                return
        if not self._has_standby and not self._is_readable(_IDLE):
            self._fork_standby()

    def _fork_standby(self) -> None:
        """Fork a standby; in the standby, serve its own control socket from now on."""
        try:
            control = fork_standby(self._control)
        except OSError:  # retried after the next request
            return
        self._has_standby = True
        if control is not None:
            self._close_server_sockets()
            self._control, self._has_standby = control, False
            self.process_id, self.is_standby = posix.getpid(), True
            set_title(f"standby of the {self._title}")

    def _receive(self) -> list[ForkRequest] | None:
        """Wait for a request, and receive all that are queued; None: end-of-file.

        The list is empty if a standby was woken, or a lost one has to be replaced.
        """
        requests: list[ForkRequest] = []
        while not requests or self._is_readable():
            try:
                data, descriptors, flags, _ = recv_fds(
                    self._control, 1, MAX_DESCRIPTORS
                )
            except ConnectionResetError:  # closed with unread messages of this server
                return None
            if not data:
                return None
            close_on_exec(descriptors)
            if flags & MSG_CTRUNC:  # RLIMIT_NOFILE of this process is reached
                self._refuse_truncated(descriptors)
                continue
            if not descriptors:
                self._has_standby = self._has_standby and data != STANDBY
                return requests
            if len(descriptors) >= 2:
                document, reply, *others = descriptors
                requests.append(ForkRequest(document, reply, tuple(others)))
        return requests

    def _refuse_truncated(self, descriptors: list[int]) -> None:
        """Refuse a request that has lost some of its descriptors."""
        problem = OSError(errno.EMFILE, posix.strerror(errno.EMFILE))
        if len(descriptors) >= 2:
            _refuse([ForkRequest(descriptors[0], descriptors[1], ())], problem)
        for descriptor in descriptors:
            posix.close(descriptor)

    def _is_readable(self, timeout: float = 0.0) -> bool:
        poller = poll()
        poller.register(self._control, POLLIN)
        return bool(poller.poll(round(timeout * 1000)))

    def _give_to_preforked(self, request: ForkRequest) -> bool:
        descriptors = [request.document, request.reply, *request.others]
        while self._preforked:
            with self._preforked.popleft() as child:
                try:
                    send_fds(child, [b"r"], descriptors)
                except OSError:  # the child was killed
                    continue
            close_request(request)
            return True
        return False

    def _fork(self, requests: list[ForkRequest], all_: list[ForkRequest]) -> None:
        """Fork a child for each request, through one intermediate process.

        A child starts when the intermediate process has exited, and it so is a child
        of the controller; end-of-file on a pipe tells. Of *all_* requests, a child
        keeps only its own.
        """
        try:
            read, write = posix.pipe()
        except OSError as exc:
            _refuse(requests, exc)
            return
        try:
            is_intermediate = _fork_intermediate()
        except OSError as exc:
            posix.close(read)
            posix.close(write)
            _refuse(requests, exc)
            return
        if is_intermediate:
            for request in requests:
                try:
                    is_child = fork() == 0
                except OSError as exc:
                    _refuse([request], exc)
                    continue
                if is_child:
                    for other in all_:
                        if other is not request:
                            close_request(other)
                    self._close_server_sockets()
                    posix.close(write)
                    posix.read(read, 1)
                    posix.close(read)
                    run_child(request, self._import_state)
            posix._exit(0)
        posix.close(read)
        posix.close(write)

    def _prefork(self) -> bool:
        """Prefork a child; return whether that was possible."""
        try:
            ours, theirs = socket_pair()
        except OSError:  # the next request reports it
            return False
        try:
            is_intermediate = _fork_intermediate()
        except OSError:
            ours.close()
            theirs.close()
            return False
        if is_intermediate:
            try:
                pid = fork()
            except OSError:  # closing its socket tells the server
                posix._exit(1)
            if pid == 0:
                ours.close()
                self._close_server_sockets()
                wait_for_request(theirs, self._warm_up, self._import_state)
            with suppress(OSError):
                self._control.send(_PREFORKED_PID + str(pid).encode())
            posix._exit(0)
        theirs.close()
        self._preforked.append(ours)
        return True

    def _close_server_sockets(self) -> None:
        """In a child: close the sockets of the server."""
        self._control.close()
        self.close_preforked()

    def close_preforked(self) -> None:
        """Make the preforked children exit."""
        while self._preforked:
            self._preforked.pop().close()


def _fork_intermediate() -> bool:
    """Fork the intermediate process and wait until it exits; True: in that process."""
    pid = fork()
    if pid == 0:
        return True
    with suppress(ChildProcessError):  # SIGCHLD is ignored: the kernel has reaped it
        posix.waitpid(pid, 0)
    return False


def _refuse(requests: list[ForkRequest], problem: OSError) -> None:
    """Answer that no child can be forked: errno and message."""
    text = f"!{problem.errno or 0} the fork server cannot fork: {problem.strerror}"
    for request in requests:
        # Not a copy of the descriptor: there may be none left.
        reply = socket(fileno=request.reply)
        with suppress(OSError):
            reply.send(text.encode())
        reply.detach()
