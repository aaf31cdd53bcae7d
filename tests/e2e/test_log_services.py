"""Test output of workers that goes to journald and to syslog."""

from __future__ import annotations

import socket

from tests.kits.log_services import fields_of, open_log_socket, receive
from tests.kits.serving import open_serving, short_directory

TOML = """
[services.web]
command = ["sh", "-c", '''
    echo "<4>slow"; echo "<3>oops" >&2; read word < fifo; echo $word
    exec sleep 1000''']
log_to = "journald:{journal}"

[services.far]
command = ["sh", "-c", "echo far; exec sleep 1000"]
log_to = "syslog:udp://127.0.0.1:{port}"
"""


def test_lines_of_workers_reach_log_services() -> None:
    """Also after journald was restarted; `logs` has them, too."""
    with (
        short_directory() as elsewhere,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as syslog,
    ):
        path = elsewhere / "journal"
        syslog.bind(("127.0.0.1", 0))
        syslog.settimeout(60)
        source = TOML.format(journal=path, port=syslog.getsockname()[1])
        prefix = ("sh", "-c", 'mkfifo fifo && exec "$@"', "sh")
        with open_log_socket(path) as journal:
            serving = open_serving(source, target="supervisor.toml", prefix=prefix)
            with serving as found:
                entries = [fields_of(receive(journal)) for _ in range(2)]
                assert syslog.recv(1000).endswith(b"] far")
                journal.close()
                path.unlink()
                with open_log_socket(path) as again:
                    (found.directory / "fifo").write_text("late\n")
                    assert fields_of(receive(again))["MESSAGE"] == "late"
                assert "late" in found.cli("logs", "web").stdout
    assert sorted((e["PRIORITY"], e["MESSAGE"]) for e in entries) == [
        ("3", "oops"),
        ("4", "slow"),
    ]
    assert {e["TRIO_SUPERVISOR_WORKER"] for e in entries} == {"web.0"}
