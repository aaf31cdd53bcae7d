"""A process that has imported the application once, and forks children from it.

``python -m trio_supervisor.process.fork_server CONTROL SOURCES`` with two descriptors:
a SOCK_SEQPACKET socket to the controller, and a file with what to import. It stays
single-threaded and never runs an event loop. Each request is one packet with the
descriptors of `Request`; what comes of it is said over the request's own ``birth``
socket, by the child itself, so that a child is born exactly once or not at all:

    child -> controller    its pid
    controller -> child    a byte: go on      (end-of-file: never mind, and it ends)

A child is forked twice, so that it is nobody's but the controller's, which is a
subreaper: it can be waited for there, and outlives this process. One spare child is
always ready, forked and parked, so that what follows a crash has no fork to wait for.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import select
import socket
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from trio_supervisor.process.fork_findings import (
    describe_unsafe,
    fork_warning,
    open_connections,
)
from trio_supervisor.process.fork_server_start import Plan
from trio_supervisor.process.forked_child import (
    MAX_DESCRIPTORS,
    Request,
    be_born,
    close_request,
    import_entry,
    keep_from_programs,
    park,
    set_title,
)
from trio_supervisor.process.kernel import die_with_parent, forget_parent

# Two, so that a second crash right after the first finds one, too.
_SPARES: Final = 2
# How long nothing may have been asked for before a spare is made [s].
_IDLE: Final = 0.02
# So many children have one process in between. All wait for it to end.
_BATCH: Final = 8
_SPARE_OF: Final = b"s"
_WARNING: Final = b"w"


class ForkServer:
    """The server's side."""

    def __init__(self, control: socket.socket, warm_up: Callable[[], None]) -> None:
        self._control = control
        self._warm_up = warm_up
        self._spares: deque[socket.socket] = deque()

    def serve(self) -> None:
        """Answer requests until the controller is gone."""
        while True:
            requests = self._receive()
            if requests is None:
                return
            if len(requests) > 1 or not self._give_to_spare(requests[0]):
                for first in range(0, len(requests), _BATCH):
                    self._fork(requests[first : first + _BATCH], requests)
                for request in requests:
                    close_request(request)
            while len(self._spares) < _SPARES:
                # The first one at once: a process that crashes again and again must not
                # find none. The others when what was asked for has had the processor.
                if self._is_readable(_IDLE if self._spares else 0.0):
                    break
                self._make_spare()

    def _receive(self) -> list[Request] | None:
        """Wait for a request, and take all that are there; None: nobody asks."""
        requests: list[Request] = []
        while not requests or self._is_readable():
            try:
                data, descriptors, _, _ = socket.recv_fds(
                    self._control, 1, MAX_DESCRIPTORS
                )
            except ConnectionResetError:  # it left what we had to say unread
                return None
            if not data:
                return None
            keep_from_programs(descriptors)
            if len(descriptors) >= 2:
                document, birth, *others = descriptors
                requests.append(Request(document, birth, tuple(others)))
        return requests

    def _is_readable(self, timeout: float = 0.0) -> bool:
        return bool(select.select([self._control], [], [], timeout)[0])

    def _give_to_spare(self, request: Request) -> bool:
        descriptors = [request.document, request.birth, *request.others]
        while self._spares:
            with self._spares.popleft() as spare:
                try:
                    socket.send_fds(spare, [b"r"], descriptors)
                except OSError:  # somebody killed it
                    continue
            close_request(request)
            return True
        return False

    def _fork(self, requests: list[Request], everyone: list[Request]) -> None:
        """Fork a child for each request; one process in between for all of them.

        A child begins when that one has ended, and so is the controller's: its end is
        read off a pipe. Of *everyone* that asked, it keeps what is its own alone.
        """
        read, write = os.pipe()
        try:
            is_between = _fork_between()
        except OSError as exc:
            os.close(read)
            os.close(write)
            _refuse(requests, f"cannot fork: {exc}")
            return
        if is_between:
            for request in requests:
                try:
                    is_child = os.fork() == 0
                except OSError as exc:
                    _refuse([request], f"cannot fork: {exc}")
                    continue
                if is_child:
                    for other in everyone:
                        if other is not request:
                            close_request(other)
                    self._leave()
                    os.close(write)
                    os.read(read, 1)
                    os.close(read)
                    be_born(request)
            os._exit(0)
        os.close(read)
        os.close(write)

    def _make_spare(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            is_between = _fork_between()
        except OSError:  # the next request will say so
            ours.close()
            theirs.close()
            return
        if is_between:
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._leave()
                park(theirs, self._warm_up)
            with suppress(OSError):
                self._control.send(_SPARE_OF + str(pid).encode())
            os._exit(0)
        theirs.close()
        self._spares.append(ours)

    def _leave(self) -> None:
        """In a child: let go of what is the server's."""
        self._control.close()
        while self._spares:
            self._spares.pop().close()


def _fork_between() -> bool:
    """Fork the process in between, and wait until it ended; True: this is it."""
    pid = os.fork()
    if pid == 0:
        return True
    os.waitpid(pid, 0)
    return False


def _refuse(requests: list[Request], problem: str) -> None:
    for request in requests:
        with suppress(OSError), socket.socket(fileno=os.dup(request.birth)) as birth:
            birth.send(b"!" + problem.encode())


def _sort_free_memory() -> None:
    """Have the allocator put in order what imports have freed.

    glibc leaves that to the next large request, and writes to each free piece then: in
    every child, which copied 320 more pages for it, a fifth of all that it copies.
    """
    bytearray(100_000)


def main() -> None:
    """Import everything, then serve."""
    control_descriptor, document = map(int, sys.argv[1:3])
    sys.argv[:] = ["trio_supervisor"]
    parent = os.getppid()
    control = socket.socket(fileno=control_descriptor)
    gc.disable()  # what it would collect is copied by every child
    with os.fdopen(document, "rb") as file:
        file.seek(0)
        plan: Plan = pickle.load(file)
    if plan.is_early:
        die_with_parent(parent)
    set_title(plan.title)
    for module in plan.modules:
        importlib.import_module(module)
    problems = import_entry(plan.preload)(plan.argument)
    unsafe = describe_unsafe() + open_connections({0, 1, 2, control_descriptor})
    for text in [*problems, *([fork_warning(unsafe)] if unsafe else [])]:
        with suppress(BrokenPipeError, ConnectionResetError):  # the controller is gone
            control.send(_WARNING + text.encode()[:4000])
    with suppress(Exception):  # closed, or a pipe that nobody reads
        sys.stdout.flush()
    if plan.is_early:
        forget_parent()  # from here on the end of the control socket tells
    gc.collect()
    gc.freeze()
    _sort_free_memory()
    ForkServer(control, import_entry(plan.warm_up)).serve()


if __name__ == "__main__":
    main()
