"""Find resources opened by an import that are not safe to share across fork().

A fork copies only the calling thread, so other threads are missing in the child. Two
processes that share a connection, an epoll set or an SQLite file receive each other's
answers, events and locks. Child processes of the fork server are not children of a
worker. Listening sockets, datagram sockets, log files and pipes can be shared and are
not reported.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
import threading
from collections import Counter
from collections.abc import Container, Iterable
from contextlib import suppress
from functools import partial
from socket import AF_UNIX, SO_ACCEPTCONN, SOCK_STREAM, SOL_SOCKET, socket
from typing import Any, Final

from attrs import define, field

from trio_supervisor.policy.secrets import hide_words
from trio_supervisor.process.groups import read_stat
from trio_supervisor.process.imports.exit_handlers import package_of
from trio_supervisor.process.kernel import child_pids

# Link targets in /proc/PID/fd of descriptors that are not files.
_ANONYMOUS: Final = {
    "anon_inode:[eventpoll]": "an epoll descriptor (event loop)",
    "anon_inode:[io_uring]": "an io_uring",
    "anon_inode:inotify": "an inotify descriptor",
    "anon_inode:[fanotify]": "a fanotify descriptor",
    "anon_inode:[eventfd]": "an eventfd",
    "anon_inode:[signalfd]": "a signalfd",
    "anon_inode:[timerfd]": "a timerfd",
    "anon_inode:[userfaultfd]": "a userfaultfd",
}
_GPU: Final = ("/dev/nvidia", "/dev/dri/", "/dev/kfd")
# Source: sqlite.org/howtocorrupt.html, "Carrying an open database across a fork".
_SQLITE: Final = b"SQLite format 3\0"
# OpenBLAS ends its threads before a fork (pthread_atfork) and restarts them on demand
# in parent and child. Source: OpenBLAS, driver/others/blas_server.c.
_BLAS: Final = ("openblas_get_num_threads", "scipy_openblas_get_num_threads")
# Native runtimes that start unnamed threads; named as a hint when they are loaded.
_RUNTIMES: Final = ("libgomp", "libiomp5", "libomp", "libmkl_rt", "libtbb", "libgrpc")


@define
class Findings:
    """Resources that are not safe to fork, and those that only look so."""

    unsafe: list[str] = field(factory=list)
    harmless: list[str] = field(factory=list)

    @property
    def warning(self) -> str | None:
        """One line about the unsafe resources; None: there are none."""
        if not self.unsafe:
            return None
        return (
            f"importing the application left open: {', '.join(self.unsafe)} (not safe "
            f"across fork()); open it in the target function, or set "
            f'start_method="exec"'
        )

    @property
    def note(self) -> str | None:
        """One line about the harmless resources; None: there are none."""
        if not self.harmless:
            return None
        return f"importing the application started {', '.join(self.harmless)}"


def find(known: Iterable[int], fork_aware: Container[str] = ()) -> Findings:
    """Return the findings for this process.

    Args:
        known: Descriptors to skip.
        fork_aware: Packages that restart their threads in a forked child.
    """
    findings = Findings()
    searches = (
        partial(_find_threads, fork_aware=fork_aware),
        _find_processes,
        partial(_find_descriptors, known=frozenset(known)),
    )
    for search in searches:
        with suppress(Exception):  # a missing warning must not stop the server
            search(findings)
    return findings


def _find_threads(findings: Findings, fork_aware: Container[str]) -> None:
    main = os.getpid()
    threads = {thread.native_id: thread for thread in threading.enumerate()}
    python = {tid: item for tid, item in threads.items() if tid not in (main, None)}
    for thread in python.values():
        package = package_of(getattr(thread, "_target", None) or type(thread).run)
        name = f"the thread {thread.name!r}"
        if package in fork_aware:
            findings.harmless.append(f"{name} of {package} (restarted in each worker)")
        else:
            findings.unsafe.append(name)
    if not sys.platform.startswith("linux"):
        return
    native = [
        tid
        for tid in map(int, os.listdir("/proc/self/task"))
        if tid != main and tid not in python
    ]
    if not native:
        return
    libraries = _libraries()
    of_blas = min(_blas_threads(libraries), len(native))
    if of_blas:
        findings.harmless.append(
            f"{_count(of_blas, 'OpenBLAS thread')} (restarted in each worker that "
            f"needs them)"
        )
    if (others := len(native) - of_blas) > 0:
        hints = _thread_names(native)
        hints += [name for name in _RUNTIMES if any(name in lib for lib in libraries)]
        hint = f" ({', '.join(hints)})" if hints else ""
        findings.unsafe.append(f"{_count(others, 'native thread')}{hint}")


def _thread_names(threads: Iterable[int]) -> list[str]:
    """Return the names of *threads* that differ from the process's own name."""

    def name_of(thread: int) -> str:
        with open(f"/proc/self/task/{thread}/comm", errors="replace") as file:
            return file.read().rstrip()

    own = name_of(os.getpid())
    return sorted({name for name in map(name_of, threads) if name != own})


def _libraries() -> set[str]:
    with open("/proc/self/maps", errors="replace") as file:
        return {line.split()[-1] for line in file if ".so" in line}


def _blas_threads(libraries: Iterable[str]) -> int:
    """Return the number of threads that OpenBLAS has started."""
    total = 0
    for path in libraries:
        if "openblas" not in os.path.basename(path):
            continue
        with suppress(OSError):
            library = ctypes.CDLL(path)  # already loaded: returns its handle
            for name in [n + suffix for n in _BLAS for suffix in ("", "64_", "_64")]:
                with suppress(AttributeError):
                    total += max(0, int(getattr(library, name)()) - 1)
                    break
    return total


def _find_processes(findings: Findings) -> None:
    module: Any = sys.modules.get("multiprocessing.process")
    children = list(getattr(module, "_children", ()))
    names = {process.pid: process.name for process in children}
    shared = _resource_tracker()
    for pid in sorted(child_pids()):
        state = read_stat(pid)
        if pid == shared or state is None or state[0] == "Z":
            continue
        name = names.get(pid) or _command(pid)
        findings.unsafe.append(f"the process {name!r} (pid {pid})")


def _resource_tracker() -> int | None:
    """Return the pid of multiprocessing's resource tracker, which may be shared."""
    module: Any = sys.modules.get("multiprocessing.resource_tracker")
    return getattr(getattr(module, "_resource_tracker", None), "_pid", None)


def _command(pid: int) -> str:
    with suppress(OSError), open(f"/proc/{pid}/cmdline", errors="replace") as file:
        words = file.read().rstrip("\0").split("\0")
        return " ".join(hide_words(words))[:80]
    return "?"


def _find_descriptors(findings: Findings, known: Container[int]) -> None:
    found = Counter[str]()
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        if int(name) not in known:
            with suppress(OSError):
                target = os.readlink(f"/proc/self/fd/{name}")
                if (text := _describe(int(name), target)) is not None:
                    found[text] += 1
    findings.unsafe += [
        text if count == 1 else f"{text} ({count} times)"
        for text, count in found.items()
    ]


def _describe(descriptor: int, target: str) -> str | None:
    if target in _ANONYMOUS:
        return _ANONYMOUS[target]
    if target.startswith("socket:"):
        return _describe_socket(descriptor)
    if target.startswith(_GPU):
        return f"the device {target} (GPU state does not survive a fork)"
    if target.startswith("/") and _is_sqlite(descriptor):
        return f"the SQLite database {target}"
    return None


def _describe_socket(descriptor: int) -> str | None:
    with socket(fileno=os.dup(descriptor)) as found:
        if found.type != SOCK_STREAM or found.getsockopt(SOL_SOCKET, SO_ACCEPTCONN):
            return None
        try:
            peer = found.getpeername()
        except OSError:
            return None  # not connected
        if found.family == AF_UNIX:
            name = os.fsdecode(peer)
            where = name or "the other end of a socket pair"
        else:
            where = f"{peer[0]} port {peer[1]}"
        return f"a connection to {where}"


def _is_sqlite(descriptor: int) -> bool:
    """Return whether it is an SQLite file; the file position stays unchanged."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return False
    return os.pread(descriptor, len(_SQLITE), 0) == _SQLITE


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
