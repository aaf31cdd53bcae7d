"""Autoscaling of real workers, whose load a test sets."""

from __future__ import annotations

from pathlib import Path

from tests.kits.serving import Serving, open_serving

SERVICE = """
import trio
from trio_supervisor import Application, Autoscale, Gauge, Metrics, Service

async def serve(worker):
    await worker.ready()
    while not worker.stopping.is_set():
        # Each worker bears its part of the load in the file.
        with open("load") as file:
            load, workers = map(float, file.read().split())
        worker.metrics.active.set(load / workers)
        await trio.sleep(0.02)

application = Application([
    Service(
        "web", serve, metrics=Metrics(active=Gauge()),
        count=Autoscale(minimum=1, maximum=6, metric="active", per_worker=10,
                        target=0.5, interval=0.2, scale_down_after=1),
    ),
])
"""


def load(serving: Serving, amount: float) -> None:
    count = count_of(serving)
    new = Path(serving.directory, "load.new")
    new.write_text(f"{amount} {count}")
    new.rename(serving.directory / "load")


def count_of(serving: Serving) -> int:
    return len(serving.pids("web"))


def bear(serving: Serving, amount: float, count: int) -> None:
    """Have the workers bear *amount* until there are *count* of them."""

    def is_done() -> bool:
        load(serving, amount)
        return count_of(serving) == count

    serving.until(is_done, f"{count} workers")


def test_workers_follow_the_load_over_a_reload() -> None:
    with open_serving(SERVICE, files={"load": "0 1"}) as serving:
        serving.when_ready()
        assert count_of(serving) == 1
        bear(serving, 18, 4)
        serving.wait_line("scaling to ")
        bear(serving, 1000, 6)

        assert serving.cli("reload").returncode == 0
        assert count_of(serving) == 6
        bear(serving, 9, 2)
        bear(serving, 0, 1)
        assert serving.terminate() == 0
