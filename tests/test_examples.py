"""Each example, run for real: started, ready, stopped, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
# Starting takes a second; a machine that is busy with other tests takes its time.
LIMIT = 60


@pytest.fixture
def socket() -> Iterator[str]:
    """A path short enough for a socket, whatever the temporary directory."""
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
    """Ask *process* to end, and return what it printed until then."""
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=LIMIT)
    return output


SERVICES = {
    "getting_started": ["worker.0", "worker.1", "worker.2", "worker.3"],
    "backends": ["trio.0", "trio.1", "asyncio.0", "sync.0"],
    "command": ["sleeper.0", "clock.0"],
    "custom_monitor": ["worker.0", "worker.1"],
}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_file_serves_until_it_is_told_to_stop(name: str, socket: str) -> None:
    """All workers of each example become ready, and SIGTERM ends them in good order."""
    target = str(EXAMPLES / name / "service.py")
    with subprocess.Popen(
        _command("serve", target, "--socket", socket),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            report = _wait_ready(socket)
            output = _stop(process)
        finally:
            process.kill()
    workers = report["workers"]
    assert [worker["name"] for worker in workers] == SERVICES[name]
    assert {worker["state"] for worker in workers} == {"ready"}
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


def test_the_embedded_program_restarts_a_worker_and_leaves_nothing(socket: str) -> None:
    """The block ends with the program's own signal, and with it all workers."""
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
    """The lines of *text* that are code, however it is spaced."""
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
def test_a_page_quotes_its_example_as_it_is(
    page: str, example: str, beginning: str
) -> None:
    """What is read is what was run."""
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
