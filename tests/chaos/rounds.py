"""Rounds of chaos, and what must hold after each of them."""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil
from attrs import define, field

from tests.chaos.clients import Clients
from tests.chaos.deeds import DEEDS, Deed
from tests.kits.serving import (
    Serving,
    count_descriptors,
    describe,
    find_guardian,
    open_serving,
)

SERVICE: Final = Path(__file__).with_name("service.py")
_DEEDS_PER_ROUND: Final = 6
_PATIENCE: Final = 90.0
"""How long it may take until all is well again [s]."""
_MORE_DESCRIPTORS: Final = 60
"""That the controller may hold after a round: more workers, and output not yet read."""
_MORE_MEMORY: Final = 80 * 2**20
"""That the controller may have grown by [bytes]."""


@define(eq=False)
class Rounds:
    """Rounds on one running application."""

    serving: Serving
    chance: random.Random
    say: Callable[[str], None]
    _descriptors: int = field(init=False)
    _memory: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._descriptors = count_descriptors(self.serving.process.pid)
        self._memory = psutil.Process(self.serving.process.pid).memory_info().rss

    def round(self) -> None:
        """Do some deeds at random, and check that all is well afterwards."""
        done: list[str] = []
        for _ in range(_DEEDS_PER_ROUND):
            deed: Deed = self.chance.choice(DEEDS)
            done.append(deed.__name__)
            deed(self.serving, self.chance)
            time.sleep(self.chance.random() * 0.2)
        began = time.monotonic()
        self.wait_well(done)
        took = time.monotonic() - began
        self._check_resources(done)
        self.say(f"{', '.join(done)}: well again after {took:.1f} s")

    def wait_well(self, done: list[str]) -> None:
        """Wait until all workers are ready, and `status` equals the process table."""
        end = time.monotonic() + _PATIENCE
        while problem := self.problem():
            assert self.serving.process.poll() is None, self._describe_end(done)
            assert time.monotonic() < end, f"after {done}: {problem}"
            time.sleep(0.1)

    def _describe_end(self, done: list[str]) -> str:
        """Return how the controller ended, and what it said last."""
        code = self.serving.wait_exit()
        last = "\n".join(self.serving.lines[-40:])
        return f"serve ended with {code} after {done}; its last lines:\n{last}"

    def problem(self) -> str:
        """Return what is not well yet; empty: all is."""
        done = self.serving.cli("status", "--json", "--timeout", "10")
        if done.returncode:
            return done.stderr
        report = json.loads(done.stdout)
        workers = report["workers"]
        if late := [w["name"] for w in workers if w["state"] != "ready"]:
            return f"not ready: {late}"
        known = {worker["process_id"] for worker in workers}
        if len(known) < len(workers):
            return "two workers have one process"
        running = {pid for pid in self.serving.process_ids() if _is_worker(pid)}
        if running == known:
            return ""
        return f"not as in status: {list(map(describe, running ^ known))}"

    def _check_resources(self, done: list[str]) -> None:
        process_id = self.serving.process.pid
        most = self._descriptors + _MORE_DESCRIPTORS
        end = time.monotonic() + _PATIENCE
        # Those of former workers are closed a moment after the workers have exited.
        while (descriptors := count_descriptors(process_id)) > most:
            text = f"{descriptors} descriptors, not {self._descriptors}, after {done}"
            assert time.monotonic() < end, text
            time.sleep(0.1)
        memory = psutil.Process(process_id).memory_info().rss
        assert memory <= self._memory + _MORE_MEMORY, f"{memory} bytes after {done}"


def _is_worker(process_id: int) -> bool:
    words = describe(process_id)
    return "jobs." in words or "sleep 100000" in words


def kill_controller(serving: Serving) -> None:
    """Kill the controller: nothing may be left."""
    serving.until(lambda: find_guardian(serving), "a guardian")
    serving.process.send_signal(signal.SIGKILL)
    serving.wait_exit()
    serving.wait_nothing_left()


def run_rounds(
    seed: int, is_over: Callable[[int], bool], say: Callable[[str], None] = print
) -> int:
    """Run rounds until *is_over* is true of their number; return the jobs done.

    The last one kills the controller: then nothing may be left.
    """
    say(f"seed {seed}")
    chance, number = random.Random(seed), 0
    with open_serving(SERVICE.read_text(encoding="utf-8")) as serving:
        with Clients(serving.directory) as clients:
            rounds = Rounds(serving, chance, say)
            while not is_over(number):
                number += 1
                rounds.round()
        done = (serving.directory / "done").read_text().split()
        lost = set(clients.acknowledged) - set(done)
        assert not lost, f"{len(lost)} acknowledged jobs were lost"
        assert not clients.problems, clients.problems[:5]
        assert clients.acknowledged
        kill_controller(serving)
    say(
        f"{number} rounds: {len(clients.acknowledged)} jobs acknowledged, none lost; "
        f"{clients.lost_connections} connections lost with their worker"
    )
    sys.stdout.flush()
    return len(clients.acknowledged)
