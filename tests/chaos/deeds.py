"""What is done to a running application, each thing a function."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeAlias

from tests.kits.serving import (
    Serving,
    count_descriptors,
    describe,
    find_guardian,
)
from trio_supervisor.errors import SupervisorError

Deed: TypeAlias = Callable[[Serving, random.Random], None]

_PAUSE: Final = 0.3
"""How long a process stays stopped, and how long descriptors are short [s]."""
_BROKEN: Final = "raise RuntimeError('a release with a mistake')\n"


def _send(process_id: int, sig: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process_id, sig)


def _workers(serving: Serving, chance: random.Random, most: int) -> list[int]:
    """Return the pids of up to *most* workers."""
    with suppress(SupervisorError):
        found = [pid for pid in serving.pids("jobs", "other").values() if pid]
        return chance.sample(found, min(len(found), chance.randint(1, most)))
    return []


def _helper(serving: Serving, words: str) -> list[int]:
    """Return the pids of processes whose command line has *words*."""
    return [pid for pid in serving.process_ids() if words in describe(pid)]


def kill_workers(serving: Serving, chance: random.Random) -> None:
    """Kill some workers at once."""
    for process_id in _workers(serving, chance, 20):
        _send(process_id, signal.SIGKILL)


def terminate_workers(serving: Serving, chance: random.Random) -> None:
    """Send SIGTERM to some workers, twice each."""
    for process_id in _workers(serving, chance, 30):
        _send(process_id, signal.SIGTERM)
        _send(process_id, signal.SIGTERM)


def pause_workers(serving: Serving, chance: random.Random) -> None:
    """Stop and continue some workers."""
    _pause(_workers(serving, chance, 10))


def pause_anything(serving: Serving, chance: random.Random) -> None:
    """Stop and continue any process, also the controller."""
    _pause([chance.choice(serving.process_ids())])


def _pause(process_ids: list[int]) -> None:
    for process_id in process_ids:
        _send(process_id, signal.SIGSTOP)
    time.sleep(_PAUSE)
    for process_id in process_ids:
        _send(process_id, signal.SIGCONT)


def kill_supervisor(serving: Serving, chance: random.Random) -> None:
    """Kill the supervisor."""
    with suppress(SupervisorError):
        serving.kill("supervisor")


def kill_fork_servers(serving: Serving, chance: random.Random) -> None:
    """Kill the fork server, its spares or its standby, or all of them."""
    found = _helper(serving, "fork server")
    for process_id in found if chance.random() < 0.3 else found[:1]:
        _send(process_id, signal.SIGKILL)


def kill_guardian(serving: Serving, chance: random.Random) -> None:
    """Kill the guardian."""
    if (process_id := find_guardian(serving)) is not None:
        _send(process_id, signal.SIGKILL)


def write_garbage(serving: Serving, chance: random.Random) -> None:
    """Write garbage and half lines to the supervisor's socket, and hang up."""
    for _ in range(20):
        with suppress(OSError), socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(1)
            peer.connect(os.fspath(serving.socket))
            peer.sendall(chance.randbytes(chance.randint(1, 2000)))
            peer.sendall(b'{"id":1,"do":"restart","na')


def exhaust_descriptors(serving: Serving, chance: random.Random) -> None:
    """Leave the controller hardly any descriptors for a moment, under crashes."""
    process_id = serving.process.pid
    before = resource.prlimit(process_id, resource.RLIMIT_NOFILE)
    few = count_descriptors(process_id) + chance.randint(0, 4)
    resource.prlimit(process_id, resource.RLIMIT_NOFILE, (few, before[1]))
    try:
        kill_workers(serving, chance)
        time.sleep(_PAUSE)
    finally:
        resource.prlimit(process_id, resource.RLIMIT_NOFILE, before)


def reload_well(serving: Serving, chance: random.Random) -> None:
    """Reload, and go on without waiting for it."""
    serving.process.send_signal(signal.SIGHUP)


def reload_badly(serving: Serving, chance: random.Random) -> None:
    """Reload a release that cannot be imported, and put the good one back."""
    good = (serving.directory / "service.py").read_text(encoding="utf-8")
    serving.put("service.py", _BROKEN)
    serving.cli("reload", "--timeout", "20")
    serving.put("service.py", good)


def scale(serving: Serving, chance: random.Random) -> None:
    """Change the number of workers."""
    serving.cli("scale", f"jobs={chance.randint(40, 60)}", "--timeout", "20")


def remove_files(serving: Serving, chance: random.Random) -> None:
    """Remove the supervisor's socket, and what is in the temporary directory."""
    with suppress(FileNotFoundError):
        serving.socket.unlink()
    for path in (serving.directory / "tmp").rglob("*"):
        with suppress(OSError):
            path.unlink()


DEEDS: Final[tuple[Deed, ...]] = (
    *(kill_workers, terminate_workers, pause_workers, pause_anything),
    *(kill_supervisor, kill_fork_servers, kill_guardian, write_garbage),
    *(exhaust_descriptors, reload_well, reload_badly, scale, remove_files),
)
