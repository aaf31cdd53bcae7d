"""Read the state of each thread of a process, and the call it waits in, from /proc.

Source: proc_pid_stat(5), proc_pid_syscall(5), proc_pid_wchan(5). This runs no code in
the process and interrupts nothing.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from typing import Final

from attrs import frozen

_X86: Final = {
    0: "read",
    1: "write",
    7: "poll",
    23: "select",
    34: "pause",
    35: "nanosleep",
    42: "connect",
    43: "accept",
    44: "sendto",
    45: "recvfrom",
    46: "sendmsg",
    47: "recvmsg",
    61: "wait4",
    65: "semop",
    70: "msgrcv",
    72: "fcntl",
    73: "flock",
    74: "fsync",
    128: "rt_sigtimedwait",
    130: "rt_sigsuspend",
    202: "futex",
    220: "semtimedop",
    230: "clock_nanosleep",
    232: "epoll_wait",
    247: "waitid",
    270: "pselect6",
    271: "ppoll",
    281: "epoll_pwait",
    288: "accept4",
    441: "epoll_pwait2",
}
_ARM: Final = {
    22: "epoll_pwait",
    25: "fcntl",
    32: "flock",
    63: "read",
    64: "write",
    72: "pselect6",
    73: "ppoll",
    82: "fsync",
    95: "waitid",
    98: "futex",
    101: "nanosleep",
    115: "clock_nanosleep",
    133: "rt_sigsuspend",
    137: "rt_sigtimedwait",
    188: "msgrcv",
    192: "semtimedop",
    193: "semop",
    202: "accept",
    203: "connect",
    206: "sendto",
    207: "recvfrom",
    211: "sendmsg",
    212: "recvmsg",
    242: "accept4",
    260: "wait4",
    441: "epoll_pwait2",
}
_NAMES: Final = {"x86_64": _X86, "aarch64": _ARM}
_RESTARTED: Final = frozenset(
    {"read", "write", "wait4", "waitid", "futex", "fcntl", "flock", "fsync"}
)
"""System calls that are restarted after a handler with SA_RESTART: signal(7)."""
_STATES: Final = {
    "R": "running",
    "S": "sleeping",
    "D": "in an uninterruptible wait",
    "T": "stopped",
    "t": "stopped by a debugger",
    "Z": "ended",
    "X": "ended",
    "I": "idle",
}


@frozen(kw_only=True)
class ThreadView:
    """The kernel's view of one thread."""

    number: int
    is_main: bool
    state: str
    """A letter, as in ps(1)."""
    call: str = ""
    """Its current system call; empty: none, or not readable."""
    place: str = ""
    """The kernel function in which it waits; empty as *call*."""
    processor_time: float = 0.0
    """CPU time used so far [s]."""

    def __str__(self) -> str:
        words = _STATES.get(self.state, f"in state {self.state}")
        if self.state == "R" or not (self.call or self.place):
            return words
        return f"{words} in {self.call or self.place}"

    @property
    def can_be_signalled(self) -> bool:
        """Whether a handled signal cannot interrupt its system call.

        ``sleep``, ``poll``, ``pause`` and similar calls are never restarted: C code
        that called one would continue too early.
        """
        return self.state == "R" or self.call in _RESTARTED


def state_of(process_id: int) -> str:
    """Return the state of a process, a letter as in ps(1); empty: it has exited.

    Without ``/proc``, ``?`` for each process that exists.
    """
    if not os.path.isdir("/proc/self/task"):
        try:
            os.kill(process_id, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return "?"
    stat = _read(f"{_task(process_id, process_id)}/stat")
    return "" if stat is None else _stat_fields(stat)[0]


def view_threads(process_id: int) -> tuple[ThreadView, ...]:
    """Return the threads of a process, its main thread first; empty: it has exited."""
    numbers: list[int] = []
    with suppress(OSError):
        numbers = [int(name) for name in os.listdir(f"/proc/{process_id}/task")]
    numbers.sort(key=lambda number: (number != process_id, number))
    views = (_view(process_id, number) for number in numbers)
    return tuple(view for view in views if view is not None)


def _view(process_id: int, number: int) -> ThreadView | None:
    task = _task(process_id, number)
    if (stat := _read(f"{task}/stat")) is None:
        return None
    fields = _stat_fields(stat)
    call = (_read(f"{task}/syscall") or "").split()
    names = _NAMES.get(platform.machine(), {})
    place = (_read(f"{task}/wchan") or "").strip()
    return ThreadView(
        number=number,
        is_main=number == process_id,
        state=fields[0],
        call=_name(names, call[0]) if call else "",
        place="" if place == "0" else place,
        processor_time=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
    )


def _task(process_id: int, number: int) -> str:
    return f"/proc/{process_id}/task/{number}"


def _stat_fields(stat: str) -> list[str]:
    """Return the fields after the name of the thread, which may have any characters."""
    return stat.rpartition(")")[2].split()


def _name(names: dict[int, str], number: str) -> str:
    if number == "running" or number == "-1":
        return ""
    return names.get(int(number), f"system call {number}")


def _read(path: str) -> str | None:
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return None
