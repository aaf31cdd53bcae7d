"""SIGHUP: sent by a closing terminal, or to request a reload."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

import pytest

from tests.kits.places import KITS
from tests.kits.serving import Serving, open_serving, wait_gone

SERVICE = """
from trio_supervisor import Application, Command, Service, Worker

async def work(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()

application = Application(
    services=[Service("worker", work), Command("sleep", ["sleep", "1000"])]
)
"""


def in_terminal(mode: str) -> Sequence[str]:
    return (sys.executable, str(KITS / "in_terminal.py"), mode)


def controller_of(serving: Serving) -> int:
    process_id: int = serving.wait_event(event="serving")["process_id"]
    return process_id


@pytest.mark.parametrize("mode", ["leader", "shell"])
def test_closed_terminal_stops_everything(mode: str) -> None:
    with open_serving(SERVICE, prefix=in_terminal(mode)) as serving:
        controller = controller_of(serving)

        serving.process.send_signal(signal.SIGUSR1)

        event = serving.wait_event(event="shutting_down")
        assert event["reason"] == "terminal closed (SIGHUP)"
        wait_gone([controller])
        serving.wait_nothing_left()
        assert serving.files() == set()
        codes = {e["name"]: e["returncode"] for e in serving.select(event="exited")}
        assert codes["worker.0"] == 0


def test_closed_terminal_with_the_log_stops_everything() -> None:
    """Every write to the log fails from then on."""
    prefix = in_terminal("log")
    with open_serving(SERVICE, prefix=prefix, is_ready=False) as serving:
        serving.until(serving.socket.exists, "the socket")
        serving.when_ready()

        serving.process.send_signal(signal.SIGUSR1)

        assert serving.wait_exit() == 0
        assert serving.process_ids() == []
        assert serving.files() == set()


def test_sighup_with_open_terminal_reloads() -> None:
    with open_serving(SERVICE, prefix=in_terminal("leader")) as serving:
        os.kill(controller_of(serving), signal.SIGHUP)

        serving.wait_event(event="reloaded", generation=2)
        assert serving.cli("shutdown").returncode == 0


def test_sighup_without_terminal_reloads() -> None:
    with open_serving(SERVICE, prefix=["setsid", "--wait"]) as serving:
        os.kill(controller_of(serving), signal.SIGHUP)

        serving.wait_event(event="reloaded", generation=2)
        assert serving.cli("shutdown").returncode == 0


def test_sighup_under_nohup_is_ignored() -> None:
    """That of the terminal and a later one; a worker gets its own SIGHUP."""
    with open_serving(SERVICE, prefix=in_terminal("nohup")) as serving:
        controller = controller_of(serving)
        mark = serving.mark()

        serving.process.send_signal(signal.SIGUSR1)
        wait_gone([os.getsid(controller)])  # the shell
        os.kill(controller, signal.SIGHUP)

        serving.wait_line("received SIGHUP; ignored")
        assert serving.select(mark, event="reloaded") == []
        assert serving.select(mark, event="shutting_down") == []
        os.kill(serving.worker("sleep.0")["process_id"], signal.SIGHUP)
        exited = serving.wait_event(event="exited", name="sleep.0")
        assert exited["returncode"] == -signal.SIGHUP
        assert serving.cli("reload").returncode == 0
        assert serving.cli("shutdown").returncode == 0
