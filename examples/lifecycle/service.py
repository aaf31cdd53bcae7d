"""Start a database, then a one-shot migration, then services that need both."""

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
    """Migrate the database once, before its users start."""
    socket.create_connection(("127.0.0.1", int(PORT))).close()
    print(f"{worker.name}: the tables are up to date", flush=True)


async def work(worker: Worker) -> None:
    """Stay ready until stopped."""
    await worker.ready()
    await trio.sleep_forever()


application = Application(
    name="lifecycle",
    services=[
        # A stand-in for a database; ready when the probe succeeds.
        Command(
            "db",
            [sys.executable, "-m", "http.server", PORT, "--bind", "127.0.0.1"],
            directory=tempfile.gettempdir(),
            readiness=Probe.tcp(f"127.0.0.1:{PORT}", interval=0.5),
        ),
        # A one-shot job: not restarted after exit code 0.
        Service(
            "migration",
            migrate,
            backend="sync",
            restart="on-failure",
            depends_on={"db": "ready"},
        ),
        # A crash of cache also restarts web; a crash of web does not restart cache.
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
        # Any other program; it only needs web to have been started.
        Command("report", ["sleep", "infinity"], depends_on={"web": "started"}),
    ],
)
