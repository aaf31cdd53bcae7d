"""A forked child, from the fork to its end: it becomes what a `ForkSpec` says."""

from __future__ import annotations

import importlib
import itertools
import os
import pickle
import posix
import signal
import sys
import threading
import traceback
import warnings
from _socket import socketpair
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from socket import AF_UNIX, SOCK_SEQPACKET, recv_fds, socket
from typing import Any, Final, NamedTuple, NoReturn

import setproctitle

from trio_supervisor.process.imports.import_effects import ImportEffects
from trio_supervisor.process.imports.open_files import ImportedObjects, close_files
from trio_supervisor.process.spawn.fork_server_protocol import ForkSpec
from trio_supervisor.process.spawn.process_exit import (
    call_excepthook,
    exit_code,
    exit_process,
)

# A document, a birth socket, two streams, a lifeline, and sockets: 32 at most.
MAX_DESCRIPTORS: Final = 64


class ImportState(NamedTuple):
    """What a child has from its fork server."""

    effects: ImportEffects
    imported: ImportedObjects


class ForkRequest(NamedTuple):
    """The descriptors of one request, in the order in which they travel."""

    document: int
    """A file: the pickled `ForkSpec`."""
    birth: int
    """A stream socket to whoever asked."""
    others: tuple[int, ...]
    """For the child, as its entry expects them."""


def socket_pair() -> tuple[socket, socket]:
    """Return two connected sockets that keep packets apart, and block."""
    first, second = (
        socket(fileno=end.detach()) for end in socketpair(AF_UNIX, SOCK_SEQPACKET)
    )
    for end in (first, second):
        end.setblocking(True)  # whatever the default timeout is now
    return first, second


def fork() -> int:
    """Fork, without what Python 3.12 says of threads: `fork_findings` says it better.

    A filter of the import that makes errors of warnings would have it fail, too.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return posix.fork()


def close_on_exec(descriptors: Sequence[int]) -> None:
    """Keep what was received from programs that a child executes."""
    for descriptor in descriptors:
        posix.set_inheritable(descriptor, False)


def close_request(request: ForkRequest) -> None:
    for descriptor in (request.document, request.birth, *request.others):
        posix.close(descriptor)


def wait_for_request(
    inbox: socket, warm_up: Callable[[], None], import_state: ImportState
) -> NoReturn:
    """Be a spare: get used to it, then wait to be needed.

    Most of what a forked child does at first is to copy the pages that it touches; a
    spare that has done it all once, for nothing, has them.
    """
    import_state.effects.end_on_terminate()
    with inbox:
        try:
            warm_up()
        except BaseException:
            traceback.print_exc()
            posix._exit(1)
        data, descriptors, _, _ = recv_fds(inbox, 1, MAX_DESCRIPTORS)
    if not data or len(descriptors) < 2:
        posix._exit(0)  # the server is gone
    close_on_exec(descriptors)
    document, birth, *others = descriptors
    run_child(ForkRequest(document, birth, tuple(others)), import_state)


def run_child(request: ForkRequest, import_state: ImportState) -> NoReturn:
    """In a child: become what is asked for; never return to the server's frames."""
    import_state.effects.end_on_terminate()
    code = 1
    try:
        code = _run_entry(request, import_state)
    except SystemExit as exc:
        code = exit_code(exc)
    except KeyboardInterrupt as exc:
        call_excepthook(exc)
        code = -signal.SIGINT
    except BaseException as exc:
        call_excepthook(exc)
    finally:
        try:
            threading._shutdown()  # type: ignore[attr-defined]
        finally:
            exit_process(code, lambda: close_files(import_state.imported))


def _run_entry(request: ForkRequest, import_state: ImportState) -> int:
    is_wanted = False
    with socket(fileno=request.birth) as announcement:
        announcement.setblocking(True)
        # First of all: whoever asked gets ready for us while we get ready.
        try:
            announcement.send(str(posix.getpid()).encode())
        except OSError:
            return 0  # whoever asked has given up
        with open(request.document, "rb") as file:
            file.seek(0)
            birth: ForkSpec = pickle.load(file)
        others = request.others
        if birth.has_streams:
            _take_streams(others[:2], import_state.effects.redirected)
            others = others[2:]
        _set_environment(import_state.effects.environment_of(birth.environment))
        _reseed()
        _forget_multiprocessing_children()
        set_title(birth.title)
        entry = import_entry(birth.entry)
        with suppress(OSError):
            is_wanted = bool(announcement.recv(1))
    if not is_wanted:
        return 0
    if birth.runs_application:
        import_state.effects.reapply()
    else:
        import_state.effects.discard()
    entry(birth.boot, others)
    return 0


def _take_streams(descriptors: Sequence[int], redirected: Container[int]) -> None:
    """Have *descriptors* as standard output and error, but for those *redirected*."""
    for descriptor, number in zip(descriptors, (1, 2), strict=True):
        if number not in redirected:
            posix.dup2(descriptor, number)
        posix.close(descriptor)


def import_entry(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    entry: Callable[..., Any]
    entry = getattr(importlib.import_module(module), function)
    return entry


def _set_environment(environment: Mapping[str, str]) -> None:
    """Have *environment*, changing no more than differs."""
    for name in [name for name in os.environ if name not in environment]:
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _reseed() -> None:
    """Have children differ in what is random."""
    # The random module, tempfile, uuid and OpenSSL (since 1.1.1) see a fork themselves.
    # Only where it is loaded: numpy imports it when it is first asked for, which takes
    # every child up to 200 ms.
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        with suppress(Exception):  # replaced by something else
            numpy_random.seed()


def _forget_multiprocessing_children() -> None:
    """Forget what multiprocessing has started in the fork server.

    Source: ``BaseProcess._bootstrap`` in multiprocessing/process.py, which does so in
    its own forked children. At its end a worker would end them, else.
    """
    process: Any = sys.modules.get("multiprocessing.process")
    if process is not None:
        process._children = set()
        process._process_counter = itertools.count(1)
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()


def set_title(title: str) -> None:
    """Name this process for ps and top.

    The server was started with SPT_NOENV: without it setproctitle would write over the
    environment that /proc shows, in which the guardian looks for the marker.
    """
    clean = title.encode("utf-8", "replace").decode()  # the name of a file may be any
    setproctitle.setproctitle(f"trio_supervisor: {clean}")
