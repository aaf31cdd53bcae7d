"""Run a forked child, from the fork to its exit, as its `ForkSpec` says."""

from __future__ import annotations

import gc
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
from trio_supervisor.process.spawn.exec_wrapper import take_settings
from trio_supervisor.process.spawn.fork_server_protocol import ForkSpec
from trio_supervisor.process.spawn.process_exit import (
    call_excepthook,
    exit_code,
    exit_process,
)

# A document, a reply socket, two streams, a lifeline, and at most 32 sockets.
MAX_DESCRIPTORS: Final = 64
_MAX_CONFIRMATION: Final = 65_536


class ImportState(NamedTuple):
    """State of the import, which the children need."""

    effects: ImportEffects
    imported: ImportedObjects


class ForkRequest(NamedTuple):
    """The descriptors of one request, in the order in which they are sent."""

    document: int
    """File with the pickled `ForkSpec`."""
    reply: int
    """Stream socket to the task of the controller that requested the child."""
    others: tuple[int, ...]
    """For the child, in the order that its entry expects."""


def socket_pair() -> tuple[socket, socket]:
    """Return two connected, blocking sockets that preserve packet boundaries."""
    first, second = (
        socket(fileno=end.detach()) for end in socketpair(AF_UNIX, SOCK_SEQPACKET)
    )
    for end in (first, second):
        end.setblocking(True)  # the import may have changed the default timeout
    return first, second


def fork() -> int:
    """Fork, without Python 3.12's warning about threads: see `fork_findings`.

    A warning filter of the import that raises errors would make the fork fail.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return posix.fork()


def close_on_exec(descriptors: Sequence[int]) -> None:
    """Close received descriptors in programs that a child executes."""
    for descriptor in descriptors:
        posix.set_inheritable(descriptor, False)


def close_request(request: ForkRequest) -> None:
    """Close the descriptors of a request."""
    for descriptor in (request.document, request.reply, *request.others):
        posix.close(descriptor)


def wait_for_request(
    inbox: socket, warm_up: Callable[[], None], import_state: ImportState
) -> NoReturn:
    """In a preforked child: warm up, then wait for a request and run it.

    A forked child first copies the memory pages that it touches (copy on write). A
    preforked child that has run its first steps once has copied them already.
    """
    import_state.effects.end_on_terminate()
    with inbox:
        try:
            gc.enable()
            warm_up()
        except BaseException:
            traceback.print_exc()
            posix._exit(1)
        data, descriptors, _, _ = recv_fds(inbox, 1, MAX_DESCRIPTORS)
    if not data or len(descriptors) < 2:
        posix._exit(0)  # the server is gone
    close_on_exec(descriptors)
    document, reply, *others = descriptors
    run_child(ForkRequest(document, reply, tuple(others)), import_state)


def run_child(request: ForkRequest, import_state: ImportState) -> NoReturn:
    """In a child: run the request; never return to the frames of the server."""
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
    confirmation = b""
    with socket(fileno=request.reply) as reply:
        reply.setblocking(True)
        # First of all: the controller prepares for the child while the child prepares.
        try:
            reply.send(str(posix.getpid()).encode())
        except OSError:
            return 0  # the request was cancelled
        with open(request.document, "rb") as file:
            file.seek(0)
            spec: ForkSpec = pickle.load(file)
        others = request.others
        numbers = (*[0][: spec.has_stdin], *[1, 2][: 2 * spec.has_streams])
        _take_streams(others, numbers, import_state.effects.redirected)
        others = others[len(numbers) :]
        _set_environment(import_state.effects.environment_of(spec.environment))
        _reseed()
        _forget_multiprocessing_children()
        set_title(spec.title)
        entry = import_entry(spec.entry)
        with suppress(OSError):
            confirmation = reply.recv(_MAX_CONFIRMATION)
    if not confirmation:
        return 0
    take_settings(spec.own)
    if len(confirmation) > 1:  # the controller may not set them for another user
        _set_attributes(confirmation[1:])
    if spec.runs_application:
        import_state.effects.reapply()
    else:
        import_state.effects.discard()
    entry(spec.boot, others)
    return 0


def _set_attributes(pickled: bytes) -> None:
    """Set what the controller may not set for a process of another user."""
    try:
        pickle.loads(pickled).set_from_outside(posix.getpid())
    except OSError as exc:
        sys.exit(str(exc))


def _take_streams(
    descriptors: Sequence[int], numbers: Sequence[int], redirected: Container[int]
) -> None:
    """Make the first *descriptors* the streams *numbers*, but not the *redirected*."""
    for descriptor, number in zip(descriptors, numbers, strict=False):
        if number not in redirected:
            posix.dup2(descriptor, number)
        posix.close(descriptor)


def import_entry(name: str) -> Callable[..., Any]:
    """Return the function that *name*, ``module:function``, refers to."""
    module, _, function = name.partition(":")
    entry: Callable[..., Any]
    entry = getattr(importlib.import_module(module), function)
    return entry


def _set_environment(environment: Mapping[str, str]) -> None:
    """Change `os.environ` to *environment*, writing only what differs."""
    for name in [name for name in os.environ if name not in environment]:
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _reseed() -> None:
    """Reseed random generators, so that children do not share their sequences."""
    # The random module, tempfile, uuid and OpenSSL (since 1.1.1) handle a fork. Numpy
    # is reseeded only if its generator is loaded: importing it here would cost every
    # child up to 200 ms.
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        with suppress(Exception):  # the import may have replaced it
            numpy_random.seed()


def _forget_multiprocessing_children() -> None:
    """Make multiprocessing forget the children of the fork server.

    Otherwise a worker would terminate them when it exits. Source:
    ``BaseProcess._bootstrap`` in multiprocessing/process.py, which does the same in its
    own forked children.
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
