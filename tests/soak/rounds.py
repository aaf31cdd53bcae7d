"""Rounds of load and usual events, and what must not have grown after each."""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from attrs import define, field

from tests.chaos.clients import Clients
from tests.chaos.deeds import (
    Deed,
    kill_fork_servers,
    kill_supervisor,
    kill_workers,
    reload_well,
    terminate_workers,
)
from tests.chaos.rounds import Rounds, kill_controller
from tests.kits.serving import Serving, open_serving
from tests.soak.figures import MEBIBYTE, Series, summary, take_figures
from trio_supervisor.errors import SupervisorError

SERVICE: Final = Path(__file__).with_name("service.py")
_CALLS: Final = 40
_SHOWN_EVERY: Final = 20
_AWAITED: Final = ("jobs", "calls", "other")
"""Services whose workers are always ready in the end."""


def call_workers(serving: Serving, chance: random.Random) -> None:
    """Make calls to a worker; each makes it print a line, so that its log rotates."""
    operation = {"do": "echo", "text": "x" * chance.randint(10, 100)}
    with suppress(SupervisorError):
        for number in range(_CALLS):
            serving.call(
                "forward", name=f"calls.{number % 2}", operation=operation, timeout=20
            )


def scrape_metrics(serving: Serving, chance: random.Random) -> None:
    """Read the metrics, and the status."""
    with suppress(SupervisorError):
        serving.call("metrics", per_worker=bool(chance.randrange(2)))
        serving.call("status")
        serving.call("events")


def connect_on_demand(serving: Serving, chance: random.Random) -> None:
    """Have the service that starts on demand answer."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(os.fspath(serving.directory / "demand.sock"))
        client.sendall(b"hello\n")
        client.recv(100)


def restart(serving: Serving, chance: random.Random) -> None:
    """Restart workers one after the other."""
    with suppress(SupervisorError):
        serving.call("restart", names=["calls"], rolling=True)


LOAD: Final[tuple[Deed, ...]] = (call_workers, scrape_metrics, connect_on_demand)
EVENTS: Final[tuple[Deed, ...]] = (
    *(kill_workers, terminate_workers, restart, restart),
    *(reload_well, kill_supervisor, kill_fork_servers),
)


@define(eq=False)
class SoakRounds(Rounds):
    """Rounds of a soak."""

    series: Series = field(factory=Series, init=False)

    def round(self) -> None:
        """Do what is usual, and compare the figures with those of earlier rounds.

        Raises:
            AssertionError: something grows, or all is not well in time.
        """
        event: Deed = self.chance.choice(EVENTS)
        done = [event.__name__]
        for deed in (*LOAD, event, *LOAD):
            deed(self.serving, self.chance)
        self.wait_well(done)
        supervisor = self.serving.when_ready()["supervisor"]["process_id"]
        self.series.add(time.monotonic(), take_figures(self.serving, supervisor))
        growing = self.series.growing()
        assert not growing, "; ".join(growing)

    def problem(self) -> str:
        """Return what is not well yet; services on demand may be stopped."""
        done = self.serving.cli("status", "--json", "--timeout", "10")
        if done.returncode:
            return done.stderr
        workers = json.loads(done.stdout)["workers"]
        late = [
            worker["name"]
            for worker in workers
            if worker["service"] in _AWAITED and worker["state"] != "ready"
        ]
        return f"not ready: {late}" if late else ""


def run_soak(
    seed: int, is_over: Callable[[int], bool], say: Callable[[str], None] = print
) -> Series:
    """Run rounds until *is_over* is true of their number; return the figures."""
    say(f"seed {seed}")
    number = 0
    source = SERVICE.read_text(encoding="utf-8")
    with open_serving(source, is_ready=False) as serving:
        serving.wait_event(event="all_ready")
        rounds = SoakRounds(serving, random.Random(seed), say)
        try:
            with Clients(serving.directory) as clients:
                while not is_over(number):
                    number += 1
                    rounds.round()
                    if number % _SHOWN_EVERY == 0:
                        memory = rounds.series.points["controller: memory"][-1][1]
                        say(f"{number} rounds; controller: {memory / MEBIBYTE:.1f} MiB")
        finally:
            say("\n".join(summary(rounds.series)))
        done = (serving.directory / "done").read_text().split()
        assert not set(clients.acknowledged) - set(done), "acknowledged jobs were lost"
        assert not clients.problems, clients.problems[:5]
        kill_controller(serving)
    say(f"{number} rounds, {len(clients.acknowledged)} jobs: nothing has grown")
    sys.stdout.flush()
    return rounds.series
