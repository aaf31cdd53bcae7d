"""Who waits for whom: a database, a migration that runs once, and what needs both."""

import os
import socket
import sys
import tempfile

import trio

from trio_supervisor import (
    Application,
    Command,
    Group,
    Probe,
    Service,
    SyncWorker,
    Worker,
)

PORT = os.environ.get("DATABASE_PORT", "7010")


def migrate(worker: SyncWorker) -> None:
    """Do once what has to be done before anybody else comes; return when it is done."""
    socket.create_connection(("127.0.0.1", int(PORT))).close()
    print(f"{worker.name}: the tables are up to date", flush=True)


async def work(worker: Worker) -> None:
    """Do nothing for as long as it takes."""
    await worker.ready()
    await trio.sleep_forever()


application = Application(
    name="lifecycle",
    services=[
        # Stands for a database; it is ready when the probe says so.
        Command(
            "db",
            [sys.executable, "-m", "http.server", PORT, "--bind", "127.0.0.1"],
            directory=tempfile.gettempdir(),
            readiness=Probe.tcp(f"127.0.0.1:{PORT}", interval=0.5),
        ),
        # Not started again once it has ended with 0.
        Service(
            "migration",
            migrate,
            backend="sync",
            restart="on-failure",
            depends_on={"db": "ready"},
        ),
        # A crash of the cache restarts web, too; one of web leaves the cache alone.
        Group(
            [
                Service("cache", work),
                Service(
                    "web",
                    work,
                    count=2,
                    depends_on={"db": "ready", "migration": "exited_ok"},
                ),
            ],
            strategy="rest_for_one",
            intensity=5,
            name="front",
        ),
        # Any other program; it needs no more than that web was started.
        Command("report", ["sleep", "infinity"], depends_on={"web": "started"}),
    ],
)
