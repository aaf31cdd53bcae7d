"""Test what is read over the socket."""

from __future__ import annotations

import pytest

from tests.kits.ruby_server import NAME, open_ruby_server
from tests.kits.serving import open_serving, short_directory
from trio_supervisor.cli.top.client import SocketClient
from trio_supervisor.cli.top.history import UsageHistory
from trio_supervisor.cli.top.rows import rows_of
from trio_supervisor.errors import NoSupervisorError

SERVICE = """
from trio_supervisor import Application, Command, Monitor, Service

class Broken(Monitor):
    def status(self):
        raise LookupError("no sky at all")

nap = Command("nap", ["sleep", "1000"])
none = Command("none", ["sleep", "1000"], autostart=False)
application = Application([nap, none], monitors=[Broken()])
"""


def test_client_reads_status_usage_and_problems() -> None:
    with open_serving(SERVICE) as serving:
        client = SocketClient(str(serving.socket), 20)
        client.read()
        snapshot = client.read()
        nap = snapshot.workers[0]
        assert nap["usage"]["rss"] > 0
        assert nap["usage"]["cpu_share"] >= 0
        assert snapshot.services == ["nap", "none"]
        assert snapshot.headline.startswith("supervisor pid ")
        assert list(snapshot.problems) == [
            "monitor broken: status(): LookupError: no sky at all"
        ]


def test_client_reads_connections_of_foreign_server() -> None:
    with short_directory() as directory, open_ruby_server(directory) as server:
        snapshot = SocketClient(str(server.path), 20).read()
    rows = rows_of(snapshot, UsageHistory(), 4)
    assert NAME in [row.name for row in rows]
    assert not any(row.is_managed for row in rows)


def test_client_without_supervisor_raises() -> None:
    with pytest.raises(NoSupervisorError, match="no such file"):
        SocketClient("/nowhere/a.ipc", 1).read()
