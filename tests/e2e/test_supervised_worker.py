"""Test programs that register with a supervisor that did not start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.kits.places import EXAMPLES
from tests.kits.serving import (
    PATIENCE,
    Serving,
    environment_of_children,
    open_serving,
    run_cli,
    wait_gone,
)

SMALL = """
from trio_supervisor import Application, Service, SyncWorker

def work(worker: SyncWorker) -> None:
    worker.ready()
    worker.stopping.wait()

application = Application(services=[Service("web", work, backend="sync")])
"""

PROGRAM = """
import signal, sys, threading
import anyio
from trio_supervisor import supervised_worker

async def main() -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async with supervised_worker(sys.argv[2], name="outsider") as worker:
            worker.handle("double", double)
            async for _ in signals:
                break
    print("left:", threading.active_count() - 1, flush=True)

async def double(number: int) -> int:
    await anyio.sleep(0)
    return 2 * number

anyio.run(main, backend=sys.argv[1])
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """Serve one worker."""
    with open_serving(SMALL) as serving:
        yield serving


@pytest.fixture(params=["trio", "asyncio"])
def program(
    serving: Serving, request: pytest.FixtureRequest
) -> Iterator[subprocess.Popen[str]]:
    """Run a program that has registered."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, request.param, str(serving.socket)],
        env=environment_of_children(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_registered(serving, process.pid)
            yield process
        finally:
            process.kill()


def wait_registered(serving: Serving, process_id: int) -> None:
    """Wait until the process is registered, alone under its name."""
    while [
        worker["process_id"]
        for worker in serving.call("workers")["workers"]
        if worker["name"] == "outsider"
    ] != [process_id]:
        pass


def test_registered_program_is_diagnosed_and_never_restarted(
    serving: Serving, program: subprocess.Popen[str]
) -> None:
    row = serving.worker("outsider")
    assert (row["process_id"], row["is_managed"]) == (program.pid, False)
    assert "(not started by this controller)" in serving.cli("status").stdout

    dump = serving.cli("thread-dump", "outsider")
    assert "MainThread" in dump.stdout
    assert "in <module>" in dump.stdout
    answer = serving.cli("call", "outsider", "double", "number=21")
    assert json.loads(answer.stdout) == {"data": 42}
    tasks = serving.cli("scheduler-dump", str(program.pid))
    assert "main" in tasks.stdout
    sample = serving.cli("memory-sample", "outsider", "--duration", "0.3")
    assert sample.stdout.startswith("Retained after "), sample.stderr

    for verb in ("restart", "stop", "start"):
        refused = serving.cli(verb, "outsider")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "NotManaged: outsider" in refused.stderr
    assert program.poll() is None


def test_registered_program_reconnects_to_next_supervisor(
    serving: Serving, program: subprocess.Popen[str]
) -> None:
    first = serving.call("status")["supervisor"]["process_id"]
    connection_id = serving.worker("outsider")["connection_id"]

    os.kill(first, signal.SIGKILL)
    wait_gone([first])
    serving.when_ready()
    wait_registered(serving, program.pid)

    assert serving.worker("outsider")["connection_id"] != connection_id
    answer = serving.cli("call", "outsider", "double", "number=4")
    assert json.loads(answer.stdout) == {"data": 8}


def test_registered_program_exits_and_leaves_nothing(
    serving: Serving, program: subprocess.Popen[str]
) -> None:
    program.send_signal(signal.SIGTERM)
    output, _ = program.communicate(timeout=PATIENCE)
    assert (program.returncode, output) == (0, "left: 0\n")
    while any(
        worker["name"] == "outsider" for worker in serving.call("workers")["workers"]
    ):
        pass


def test_killed_registered_program_is_removed(
    serving: Serving, program: subprocess.Popen[str]
) -> None:
    program.kill()
    program.wait(PATIENCE)
    while any(
        worker["name"] == "outsider" for worker in serving.call("workers")["workers"]
    ):
        pass


def test_example_registers(serving: Serving) -> None:
    path = EXAMPLES / "registered" / "main.py"
    environment = environment_of_children()
    with subprocess.Popen(
        [sys.executable, str(path)],
        env={**environment, "TRIO_SUPERVISOR_SOCKET": str(serving.socket)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while (
                done := run_cli(
                    *("call", "importer", "progress"),
                    *("--socket", str(serving.socket)),
                    directory=serving.directory,
                )
            ).returncode:
                assert process.poll() is None
                assert "no worker or service" in done.stderr
            assert json.loads(done.stdout)["data"] > 0
            process.terminate()
            output, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert output.startswith("imported ")
