"""Register an asyncio program with a supervisor that did not start it.

Start any service file with `trio-supervisor serve`, then this program beside it:

    TRIO_SUPERVISOR_SOCKET=…/supervisor.ipc python main.py
    trio-supervisor call importer progress
    trio-supervisor thread-dump importer
"""

import asyncio
import signal

from trio_supervisor import supervised_worker


async def main() -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_signal_handler(signal.SIGINT, stopped.set)
    rows = 0

    def progress() -> int:
        """Return the number of imported rows."""
        return rows

    async with supervised_worker(name="importer") as worker:
        worker.handle("progress", progress)
        while not stopped.is_set():
            rows += 1
            await asyncio.sleep(0.01)
    print(f"imported {rows} rows", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
