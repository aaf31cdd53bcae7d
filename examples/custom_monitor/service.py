"""Replace workers that exceed a maximum age, with a custom monitor."""

from collections.abc import Mapping

import trio

from trio_supervisor import Application, Monitor, MonitoredWorker, Service, Worker


class LifetimeMonitor(Monitor):
    """A monitor that restarts workers older than *maximum_age* [s]."""

    def __init__(self, *, maximum_age: float, interval: float = 10.0) -> None:
        super().__init__(interval=interval)
        self.maximum_age = maximum_age
        self._workers: dict[str, MonitoredWorker] = {}
        self._restarts = 0

    def register(self, worker: MonitoredWorker) -> None:
        """Start watching *worker*."""
        self._workers[worker.connection_id] = worker

    def remove(self, worker: MonitoredWorker) -> None:
        """Stop watching *worker*."""
        self._workers.pop(worker.connection_id, None)

    async def run_once(self) -> None:
        """Restart workers that are too old, one after another."""
        for worker in list(self._workers.values()):
            if worker.is_ready and (worker.uptime or 0) > self.maximum_age:
                await worker.restart(f"it has run for {worker.uptime:.0f} s")
                self._restarts += 1

    def status(self) -> Mapping[str, object]:
        """Return what ``status --json`` shows under ``lifetime_monitor``."""
        return {"maximum_age": self.maximum_age, "restarts": self._restarts}


async def work(worker: Worker) -> None:
    await worker.ready()
    await trio.sleep_forever()


application = Application(
    services=[Service("worker", work, count=2)],
    monitors=[LifetimeMonitor(maximum_age=24 * 3600)],
)
