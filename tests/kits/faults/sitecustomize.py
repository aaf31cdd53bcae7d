"""Make system calls of a process fail; loaded by each Python under a test's `serve`.

A symbolic link ``PID.FUNCTION`` in the directory ``TEST_FAULTS`` points to the number
of the error with which that function fails in that process, as long as it exists.
"""

from __future__ import annotations

import _posixsubprocess
import _socket
import _thread
import builtins
import os
import posix
import socket
import sys
from collections.abc import Callable
from typing import Any

DIRECTORY = os.environ.get("TEST_FAULTS", "")
_readlink, _getpid, _strerror = posix.readlink, posix.getpid, posix.strerror


def _failing(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            number = int(_readlink(f"{DIRECTORY}/{_getpid()}.{name}"))
        except OSError:
            return original(*args, **kwargs)
        if name == "start_new_thread":
            raise RuntimeError("can't start new thread")
        raise OSError(number, _strerror(number))

    return call


def _wrap(name: str, *holders: Any) -> None:
    failing = _failing(name, getattr(holders[0], name))
    for holder in holders:
        setattr(holder, name, failing)


def install() -> None:
    """Replace each function by one that may fail."""
    for name in ("pipe", "dup", "memfd_create", "pidfd_open", "listdir", "fork"):
        _wrap(name, posix, os)
    for name in ("read", "write"):
        _wrap(name, posix, os)
    _wrap("fork_exec", _posixsubprocess)
    _wrap("socketpair", _socket)
    _wrap("socketpair", socket)
    _wrap("open", builtins)
    for name in ("accept", "sendmsg", "connect", "send", "recv", "getsockopt"):
        _wrap(name, socket.socket)
    _wrap("start_new_thread", _thread)
    if (threading := sys.modules.get("threading")) is not None:
        threading._start_new_thread = _thread.start_new_thread  # type: ignore[attr-defined]


if DIRECTORY:
    install()
