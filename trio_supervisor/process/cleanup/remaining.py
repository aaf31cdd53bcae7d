"""Describe processes that are still running after SIGKILL. Linux."""

from __future__ import annotations

import pwd
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from attrs import frozen

from trio_supervisor.process.groups import command_of, may_signal, read_stat

_STATES: Final = {
    "D": "uninterruptible sleep in the kernel",
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
}
_MAX_SHOWN: Final = 3


@frozen
class Forbidden:
    """A process that this one is not permitted to signal."""

    pid: int
    user: str

    def __str__(self) -> str:
        return f"not permitted to signal pid {self.pid} (user {self.user})"


def forbidden_of(pids: Iterable[int]) -> tuple[Forbidden, ...]:
    """Return *pids* with their users if none of them may be signalled; else nothing.

    See kill(2): a process may be signalled by root and by its own user. A set-user-ID
    program such as sudo(8) belongs to another user.
    """
    pids = list(pids)
    if any(may_signal(pid) for pid in pids):
        return ()
    return tuple(Forbidden(pid, user_of(pid)) for pid in pids)


def user_of(pid: int) -> str:
    """Return the effective user of process *pid*: the name, or the number."""
    number = _field(pid, "Uid").split()[1:2]
    if not number:
        return "unknown"
    try:
        return pwd.getpwuid(int(number[0])).pw_name
    except KeyError:
        return number[0]


def describe_remaining(pids: Iterable[int]) -> str:
    """Return a description of the first few *pids*, and of why they still run."""
    seen = [text for pid in pids if (text := _describe(pid))]
    more = len(seen) - _MAX_SHOWN
    return "; ".join(seen[:_MAX_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _describe(pid: int) -> str:
    stat = read_stat(pid)
    if stat is None:
        return ""
    state = f"state {stat.state}"
    if stat.state in _STATES:
        state += f", {_STATES[stat.state]}"
    if stat.state == "D" and (place := _waits_in(pid)):
        state += f" ({place})"
    tracer = _field(pid, "TracerPid")
    traced = f", traced by pid {tracer}" if tracer not in ("", "0") else ""
    return f"pid {pid} ({command_of(pid)}) is in {state}{traced}"


def _waits_in(pid: int) -> str:
    """Return the kernel function that it sleeps in; empty: unknown."""
    with suppress(OSError), open(f"/proc/{pid}/wchan") as file:
        place = file.read().strip()
        return "" if place == "0" else place
    return ""


def _field(pid: int, name: str) -> str:
    """Return a field of /proc/PID/status; empty: the process has exited."""
    with suppress(OSError), open(f"/proc/{pid}/status", errors="replace") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return line.partition(":")[2].strip()
    return ""
