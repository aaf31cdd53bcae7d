"""Test each example with real processes: start, readiness, stop, no leftovers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kits.places import EXAMPLES
from tests.kits.sockets import unused_port

# Starting takes a second, and longer on a machine that is busy with other tests.
LIMIT = 60


@pytest.fixture
def socket() -> Iterator[str]:
    """Return a path short enough for a socket in any temporary directory."""
    with tempfile.TemporaryDirectory(prefix="example-") as directory:
        yield os.path.join(directory, "supervisor.ipc")


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "trio_supervisor", *words]


def _wait_ready(socket: str) -> dict[str, Any]:
    words = ["status", "--wait-ready", "--json", "--timeout", str(LIMIT)]
    done = subprocess.run(
        _command(*words, "--socket", socket),
        stdout=subprocess.PIPE,
        timeout=LIMIT + 10,
        check=True,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _stop(process: subprocess.Popen[str]) -> str:
    """Send SIGTERM to *process*; return its output."""
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=LIMIT)
    return output


SERVICES = {
    "getting_started": ["worker.0", "worker.1", "worker.2", "worker.3"],
    "backends": ["trio.0", "trio.1", "asyncio.0", "sync.0"],
    "command": ["sleeper.0", "clock.0"],
    "custom_monitor": ["worker.0", "worker.1"],
    "autoscale": ["web.0"],
    "http_trio": ["web.0", "web.1"],
    "http_asgi": ["web.0", "web.1"],
    "lifecycle": ["db.0", "migration.0", "cache.0", "web.0", "web.1", "report.0"],
}
# Modules that an example needs besides the package, as its docstring says.
NEEDED = {
    "autoscale": "hypercorn",
    "http_trio": "hypercorn",
    "http_asgi": "uvicorn",
}


@pytest.mark.parametrize("name", SERVICES)
def test_example_serves_until_sigterm(name: str, socket: str) -> None:
    """All workers become ready, and SIGTERM stops them in order."""
    pytest.importorskip(NEEDED.get(name, "trio_supervisor"))
    target = str(EXAMPLES / name / "service.py")
    with subprocess.Popen(
        _command("serve", target, "--socket", socket),
        env={**os.environ, "PORT": "0", "DATABASE_PORT": str(unused_port())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            report = _wait_ready(socket)
            page = _page_of(report["workers"][0]) if name in NEEDED else ""
            output = _stop(process)
        finally:
            process.kill()
    workers = report["workers"]
    assert [worker["name"] for worker in workers] == SERVICES[name]
    states = {worker["state"] for worker in workers if worker["name"] != "migration.0"}
    assert states == {"ready"}
    assert process.returncode == 0, output
    assert "everything stopped" in output
    assert os.listdir(os.path.dirname(socket)) == []
    if name == "backends":
        assert "trio.0: cancelled after" in output
        assert "asyncio.0: finished after" in output
        assert "sync.0: finished after" in output
    if name == "custom_monitor":
        status = {"maximum_age": 86400, "restarts": 0}
        assert report["monitors"] == {"lifetime_monitor": status}
    if name in NEEDED:
        assert page in [f"pid {worker['process_id']}\n" for worker in workers]
    if name == "lifecycle":
        _check_order(output, workers)


def test_example_of_a_policy_leaves_the_importer_alone(socket: str) -> None:
    target = str(EXAMPLES / "custom_policy" / "service.py")
    with subprocess.Popen(
        _command("serve", target, "--socket", socket),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "exited with code 75" in line)
        process.terminate()
        process.communicate(timeout=LIMIT)
    assert "not restarting (policy); last line: no new data" in line


def _check_order(output: str, workers: list[dict[str, Any]]) -> None:
    """Check that each started after its dependencies and stopped before them."""
    assert "the tables are up to date" in output
    assert workers[1]["state"] == "stopped"
    moments = [
        _moment(output, "db.0", "ready"),
        _moment(output, "migration.0", "started"),
        _moment(output, "migration.0", "exited"),
        _moment(output, "web.0", "started"),
        _moment(output, "report.0", "started"),
        _moment(output, "report.0", "killed"),
        _moment(output, "web.0", "stopping"),
        _moment(output, "web.0", "exited"),
        _moment(output, "db.0", "stopping"),
    ]
    assert moments == sorted(moments)


def _moment(output: str, name: str, what: str) -> int:
    """Return the number of the log line with that event of *name*."""
    found = [
        number
        for number, line in enumerate(output.splitlines())
        if line.split()[1:3] == [name, what] or line.split()[1:3] == [name, f"{what}:"]
    ]
    assert len(found) == 1, (name, what, output)
    return found[0]


def _page_of(worker: dict[str, Any]) -> str:
    with urllib.request.urlopen(worker["status"], timeout=LIMIT) as answer:
        page: bytes = answer.read()
    return page.decode()


def test_embedded_example_restarts_worker_and_leaves_nothing(socket: str) -> None:
    """The program's own signal ends the block and with it all workers."""
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / "embedded" / "main.py")],
        env={**os.environ, "TRIO_SUPERVISOR_SOCKET": socket},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3)]
            rest = _stop(process)
        finally:
            process.kill()
    assert lines == [
        "ready: worker.0 worker.1\n",
        "worker.0 was restarted 1 times\n",
        "worker.1 was restarted 0 times\n",
    ]
    assert rest == "nothing is left running\n"
    assert process.returncode == 0
    assert os.listdir(os.path.dirname(socket)) == []


def _code(text: str) -> list[str]:
    """Return the lines of *text* that are code, without blank lines."""
    lines = (line.rstrip() for line in text.splitlines())
    return [line for line in lines if line and line != "# service.py"]


QUOTES = [
    ("README.md", "getting_started/service.py", "import trio"),
    ("docs/getting-started.md", "getting_started/service.py", "import trio"),
    ("docs/services.md", "backends/service.py", "async def trio_work"),
    ("docs/monitors.md", "custom_monitor/service.py", "class LifetimeMonitor"),
    ("docs/embedding.md", "embedded/main.py", "async def main"),
]


@pytest.mark.parametrize(("page", "example", "beginning"), QUOTES)
def test_page_quotes_example_unchanged(page: str, example: str, beginning: str) -> None:
    """The code in the documentation is the code that was run."""
    text = (EXAMPLES.parent / page).read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    [quote] = [
        _code(block)
        for block in blocks
        if block.removeprefix("# service.py\n").startswith(beginning)
    ]
    code = _code((EXAMPLES / example).read_text(encoding="utf-8"))
    start = code.index(quote[0])
    assert quote == code[start : start + len(quote)]
