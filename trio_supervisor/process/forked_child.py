"""A forked child, from the fork to its end: it becomes what a `Birth` says."""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn

import setproctitle

from trio_supervisor.process.fork_server_start import Birth
from trio_supervisor.process.leaving import exit_code, leave

# A document, a birth socket, two streams, a lifeline, and sockets: 32 at most.
MAX_DESCRIPTORS: Final = 64


class Request(NamedTuple):
    """The descriptors of one request, in the order in which they travel."""

    document: int
    """A file: the pickled `Birth`."""
    birth: int
    """A stream socket to whoever asked."""
    others: tuple[int, ...]
    """For the child, as its entry expects them."""


def keep_from_programs(descriptors: Sequence[int]) -> None:
    """Keep what was received from programs that a child executes."""
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)


def close_request(request: Request) -> None:
    for descriptor in (request.document, request.birth, *request.others):
        os.close(descriptor)


def park(inbox: socket.socket, warm_up: Callable[[], None]) -> NoReturn:
    """Be a spare: get used to it, then wait to be needed.

    Most of what a forked child does at first is to copy the pages that it touches; a
    spare that has done it all once, for nothing, has them.
    """
    with inbox:
        try:
            warm_up()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        data, descriptors, _, _ = socket.recv_fds(inbox, 1, MAX_DESCRIPTORS)
    if not data or len(descriptors) < 2:
        os._exit(0)  # the server is gone
    keep_from_programs(descriptors)
    document, birth, *others = descriptors
    be_born(Request(document, birth, tuple(others)))


def be_born(request: Request) -> NoReturn:
    """In a child: become what is asked for; never return to the server's frames."""
    code = 1
    try:
        code = _live(request)
    except SystemExit as exc:
        code = exit_code(exc)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            threading._shutdown()  # type: ignore[attr-defined]
        finally:
            leave(code)


def _live(request: Request) -> int:
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with socket.socket(fileno=request.birth) as announcement:
        announcement.setblocking(True)
        # First of all: whoever asked gets ready for us while we get ready.
        announcement.send(str(os.getpid()).encode())
        with os.fdopen(request.document, "rb") as file:
            file.seek(0)
            birth: Birth = pickle.load(file)
        others = request.others
        if birth.has_streams:
            _take_streams(*others[:2])
            others = others[2:]
        _differ(birth.environment)
        set_title(birth.title)
        entry = import_entry(birth.entry)
        if not announcement.recv(1):
            return 0  # whoever asked has given up
    entry(birth.boot, others)
    return 0


def _take_streams(stdout: int, stderr: int) -> None:
    """Have *stdout* and *stderr* as the standard streams of this process."""
    for descriptor, number in ((stdout, 1), (stderr, 2)):
        os.dup2(descriptor, number)
        os.close(descriptor)


def import_entry(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    entry: Callable[..., Any]
    entry = getattr(importlib.import_module(module), function)
    return entry


def _differ(environment: Mapping[str, str]) -> None:
    """Make what has to differ between children differ."""
    os.environ.clear()
    os.environ.update(environment)
    gc.enable()
    # The random module, tempfile, uuid and OpenSSL (since 1.1.1) see a fork themselves.
    # Only where it is loaded: numpy imports it when it is first asked for, which takes
    # every child up to 200 ms.
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()


def set_title(title: str) -> None:
    """Name this process for ps and top.

    The server was started with SPT_NOENV: without it setproctitle would write over the
    environment that /proc shows, in which the guardian looks for the marker.
    """
    clean = title.encode("utf-8", "replace").decode()  # the name of a file may be any
    setproctitle.setproctitle(f"trio_supervisor: {clean}")
