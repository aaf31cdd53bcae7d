"""Fork without running fork handlers of the application or its C libraries.

``os.fork`` runs handlers of pthread_atfork(3) while this thread holds the GIL. OpenBLAS
joins its threads there, which deadlocks the process if one of them, or its caller,
wants the GIL; gRPC stops and restarts its pollers. Python runs the hooks of
os.register_at_fork. The child's exit sends SIGCHLD, and a wait of the application may
reap it. Here, the system call is made directly, and the child sends no signal when it
exits.

The price: locks of C libraries, such as malloc's, that another thread held at the fork
stay locked in the child. So the child uses none of them, first checks that it can
allocate (`check_malloc`), and is forked again if it cannot.
"""

from __future__ import annotations

import _imp
import ctypes
import os
import platform
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable
from functools import cache, partial
from itertools import takewhile, tee
from operator import call, not_
from typing import Any, Final, NoReturn

import psutil

from trio_supervisor.diagnostics.snapshot.fork_hook import entry_of_child
from trio_supervisor.errors import PlatformError

# Source: linux/sched.h, linux/prctl.h, linux/wait.h.
_CLONE_CHILD_CLEARTID: Final = 0x0020_0000
_CLONE_CHILD_SETTID: Final = 0x0100_0000
_PR_GET_TID_ADDRESS: Final = 40
_WALL: Final = 0x4000_0000
_NUMBERS: Final = {"x86_64": 56, "aarch64": 220}
"""Number of the system call clone(2), by machine."""
_BLOCKS: Final = (1 << 10, 1 << 14, 1 << 17, 1 << 22)
"""Sizes that malloc allocates in different ways [bytes]."""


def bare_fork(entry: Callable[[], NoReturn]) -> int:
    """Fork a child that calls *entry*; return its process id.

    The child has only the calling thread, with all signals blocked.

    Raises:
        OSError: the fork failed.
        PlatformError: no way to fork this process safely is available.
    """
    numbers = _clone_arguments()
    if numbers is None and (foreign := foreign_threads()):
        raise PlatformError(
            f"this process cannot be forked safely: {foreign} of its threads were not "
            "started by Python, and their libraries may deadlock in pthread_atfork "
            "handlers"
        )
    parent = os.getpid()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with entry_of_child(entry):
            pid = _plain_fork() if numbers is None else _clone(numbers)
            if os.getpid() != parent:  # the hook never returns
                os._exit(1)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def wait_for(process_id: int) -> None:
    """Wait until a child of `bare_fork` exits, and reap it.

    Raises:
        ChildProcessError: it was reaped already.
    """
    os.waitpid(process_id, _WALL if sys.platform == "linux" else 0)


def check_malloc() -> None:
    """Hang now if a lock of malloc was held at the fork; called in the child.

    glibc's ``mallinfo`` acquires the lock of each arena in turn.
    """
    for size in _BLOCKS:
        bytearray(size)
    if (mallinfo := _mallinfo()) is not None:
        mallinfo()


def foreign_threads() -> int:
    """Return the number of threads that were not started by Python."""
    known = {thread.native_id for thread in threading.enumerate()}
    return sum(one.id not in known for one in psutil.Process().threads())


def prepare() -> None:
    """Look up everything that a fork uses; called in the parent, cached."""
    _mallinfo()
    if _clone_arguments() is not None:
        _system_call()
        _after_in_child()


class _Mallinfo(ctypes.Structure):
    """Source: mallinfo(3)."""

    _fields_ = (("fields", ctypes.c_int * 10),)  # type: ignore[mutable-override]  # as ctypes has it


@cache
def _mallinfo() -> Callable[[], Any] | None:
    if not _is_glibc():
        return None
    mallinfo = ctypes.PyDLL(None).mallinfo
    mallinfo.restype = _Mallinfo
    mallinfo.argtypes = ()
    return partial(mallinfo)


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False


def _plain_fork() -> int:
    # Python warns about forks in a process with threads. The child uses no lock that
    # another thread may have held; the filter applies to this call only.
    if sys.version_info >= (3, 12):
        warnings.filterwarnings(
            "ignore",
            message="This process .* is multi-threaded",
            category=DeprecationWarning,
            module=__name__.replace(".", r"\."),
        )
    return os.fork()


def _clone_arguments() -> tuple[int, ...] | None:
    """Return the arguments of a forking system call; None: unknown platform."""
    machine = platform.machine()
    is_known = sys.platform == "linux" and machine in _NUMBERS and _is_glibc()
    if not is_known or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    # glibc stores the thread id, for the owners of mutexes; the kernel writes it.
    place = ctypes.c_void_p()
    if _prctl()(_PR_GET_TID_ADDRESS, ctypes.byref(place), 0, 0, 0) or not place.value:
        return None
    flags = _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID  # and no exit signal
    if machine == "x86_64":
        return _NUMBERS[machine], flags, 0, 0, place.value, 0
    return _NUMBERS[machine], flags, 0, 0, 0, place.value


def _clone(numbers: tuple[int, ...]) -> int:
    fork = partial(_system_call(), *map(ctypes.c_long, numbers))
    # C code makes both calls, without bytecode in between: there the child may see a
    # request to release the GIL to a thread that it does not have, and hang.
    results, results_of_child = tee(map(call, [fork]))
    in_child = map(_after_in_child(), takewhile(not_, results_of_child))
    # The child inherits the import lock and expects to own it.
    _imp.acquire_lock()
    try:
        deque(in_child, maxlen=0)
    finally:
        _imp.release_lock()
    if (pid := next(results)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(pid)


@cache
def _system_call() -> Callable[..., int]:
    function = ctypes.PyDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    return function


@cache
def _prctl() -> Callable[..., int]:
    return ctypes.PyDLL(None).prctl


@cache
def _after_in_child() -> Callable[[int], None]:
    # It ignores the argument that map() passes.
    return ctypes.PYFUNCTYPE(None, ctypes.c_long)(
        ("PyOS_AfterFork_Child", ctypes.pythonapi)
    )
