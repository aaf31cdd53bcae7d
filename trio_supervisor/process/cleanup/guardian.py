"""Stop all processes of a controller that was killed.

The guardian is a separate process in its own session. It reads the table of process
groups from a pipe. If the pipe closes without ``quit``, it sends each group its stop
signal, waits for its stop timeout, kills what remains, and repeats until nothing is
left. Processes that have left their group are found by the controller's marker in their
environment. It imports neither trio nor other parts of this package.

    + GROUP SIGNAL TIMEOUT      watch this group
    - GROUP                     the group is gone
    quit                        the controller exits normally
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from trio_supervisor.process.cleanup.output_relay import MAX_DESCRIPTORS, OutputRelay
from trio_supervisor.process.groups import (
    IS_LINUX,
    command_of,
    group_exists,
    has_variable,
    is_live_member,
    may_signal,
    open_members,
    signal_descriptor,
)

# After SIGKILL, only a process in uninterruptible sleep remains, perhaps for long.
_AFTER_KILL = 60.0


class WatchedGroup(NamedTuple):
    """One process group."""

    stop_signal: int
    stop_timeout: float
    """[s]"""


class Table:
    """The groups to stop, as written by the controller."""

    def __init__(self) -> None:
        self.groups: dict[int, WatchedGroup] = {}
        self.is_dismissed = False
        self._rest = b""

    def receive_data(self, data: bytes) -> None:
        """Process *data*, in pieces of any size."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            match line.split():
                case [b"+", group, sig, timeout]:
                    self.groups[int(group)] = WatchedGroup(int(sig), float(timeout))
                case [b"-", group]:
                    self.groups.pop(int(group), None)
                case [b"quit"]:
                    self.is_dismissed = True


def end_all(table: Table, marker: str, grace: float | None = None) -> dict[int, str]:
    """Stop all groups, then all processes with *marker*; return when none is left.

    Args:
        marker: ``NAME=VALUE``; processes with it in their environment are stopped after
            the groups. Their program names are returned, by pid.
        grace: Stop timeout of these [s]; None: the longest one of the groups.
    """
    began = time.monotonic()
    asked: set[int] = set()
    escaped: dict[int, str] = {}
    longest = max((w.stop_timeout for w in table.groups.values()), default=0.0)
    grace = longest if grace is None else grace
    while time.monotonic() - began < max(longest, grace) + _AFTER_KILL:
        elapsed = time.monotonic() - began
        groups = {g: w for g, w in table.groups.items() if group_exists(g)}
        is_left = False
        for group, watched in groups.items():
            if elapsed >= watched.stop_timeout:
                is_left |= _signal_group(group, [signal.SIGKILL])
            elif group not in asked:
                asked.add(group)
                is_left |= _signal_group(group, [watched.stop_signal, signal.SIGCONT])
            else:
                is_left |= _signal_group(group, [])
        if marker and elapsed >= grace:
            is_left |= _signal_marked(marker, [signal.SIGKILL], escaped)
        elif marker and not is_left:
            # The groups are gone; processes that left them get a stop signal, once.
            is_new = -1 not in asked
            asked.add(-1)
            signals = [signal.SIGTERM, signal.SIGCONT] if is_new else []
            is_left = _signal_marked(marker, signals, escaped)
        if not is_left:
            return escaped
        time.sleep(0.02)
    return escaped


def _signal_group(group: int, signals: Sequence[int]) -> bool:
    """Send *signals* to the running members; return whether there are any."""
    if not IS_LINUX:
        for sig in signals:
            os.killpg(group, sig)
        return group_exists(group)
    try:
        return _signal_descriptors(open_members(is_live_member(group)), signals) > 0
    except OSError:  # no descriptors, or no memory: retried
        return True


def _signal_marked(marker: str, signals: Sequence[int], seen: dict[int, str]) -> bool:
    """Signal processes with *marker* in their environment; add them to *seen*.

    Return whether there are any.
    """
    if not IS_LINUX:
        return False
    variable = marker.encode()

    def belongs(pid: int) -> bool:
        if pid == os.getpid() or not has_variable(pid, variable):
            return False
        if pid not in seen and may_signal(pid):
            seen[pid] = command_of(pid)
        return True

    try:
        return _signal_descriptors(open_members(belongs), signals) > 0
    except OSError:  # no descriptors, or no memory
        return False


def _signal_descriptors(descriptors: list[int], signals: Sequence[int]) -> int:
    # A process that may not be signalled, such as another user's, is not awaited.
    count = 0
    for descriptor in descriptors:
        count += all(signal_descriptor(descriptor, sig) for sig in (0, *signals))
        os.close(descriptor)
    return count


def main() -> None:
    """Run ``guardian MARKER DIRECTORY [OUTPUTS]``, with the pipe as standard input.

    DIRECTORY, the controller's private one, is removed at the end. OUTPUTS is the
    descriptor of a socket that delivers the read ends of children's pipes.
    """
    marker, directory, *outputs = sys.argv[1:]
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(sig, signal.SIG_IGN)
    table, relay = Table(), OutputRelay()
    inbox = socket.socket(fileno=int(outputs[0])) if outputs else None
    if inbox is not None:
        inbox.setblocking(False)
    watched: list[Any] = [0] if inbox is None else [0, inbox]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if inbox in ready and inbox is not None and not _receive(inbox, relay):
            watched.remove(inbox)
        if 0 in ready:
            if not (data := os.read(0, 65536)):
                break
            table.receive_data(data)
            if table.is_dismissed:
                return
    if inbox is not None:
        _receive(inbox, relay)
    thread = relay.start()
    end_all(table, marker)
    relay.finish(thread)
    if directory:
        shutil.rmtree(directory, ignore_errors=True)


def _receive(inbox: socket.socket, relay: OutputRelay) -> bool:
    """Process all queued packets; return whether more may come."""
    while True:
        try:
            packet, descriptors, _, _ = socket.recv_fds(inbox, 65536, MAX_DESCRIPTORS)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not packet:
            return False
        relay.receive(packet, descriptors)


if __name__ == "__main__":
    main()
