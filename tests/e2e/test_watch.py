"""Test ``serve --watch``."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kits.serving import open_serving

pytest.importorskip("watchfiles")

SERVICE = """
import helper
from trio_supervisor import Application, Service, Worker

async def web(worker: Worker) -> None:
    await worker.status(helper.WORD)
    await worker.ready()
    await worker.stopping.wait()

application = Application([Service("web", web)])
"""


def watches(pid: int) -> bool:
    """Return whether the process already watches for changes."""
    kinds = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            kinds.add(os.readlink(file))
    return "anon_inode:inotify" in kinds


def test_watch_reloads_change_and_survives_mistake() -> None:
    files = {"helper.py": "WORD = 'one'\n", "notes.txt": "no code"}
    with open_serving(SERVICE, words=["--watch"], files=files) as serving:
        serving.wait_worker("web.0", status="one")
        before = serving.worker("web.0")

        serving.put("notes.txt", "still none")
        serving.put("helper.py", "WORD = 'one more'\n")
        serving.wait_event(event="reloaded", generation=2)
        assert "helper.py" in serving.wait_line("changed: ")
        assert not any("notes.txt" in line for line in serving.lines)
        after = serving.wait_worker("web.0", status="one more")
        assert after["process_id"] != before["process_id"]

        serving.put("helper.py", "WORD = \n")
        failed = serving.wait_event(event="reload_failed")
        assert "helper.py, line 1: SyntaxError" in failed["problem"]
        assert serving.worker("web.0")["process_id"] == after["process_id"]

        since = serving.mark()
        serving.put("helper.py", "WORD = 'mended'\n")
        serving.wait_event(since=since, event="reloaded")
        serving.wait_worker("web.0", status="mended")
        assert serving.terminate() == 0


def test_watch_waits_for_first_importable_version() -> None:
    with open_serving("(", is_ready=False, words=["--watch"]) as serving:
        serving.wait_line("SyntaxError")
        serving.wait_line("waiting for a change")

        serving.edit("raise LookupError('still')")
        serving.wait_line("changed: service.py; starting")
        serving.wait_line("LookupError: still")
        since = len(serving.lines)
        serving.wait_line("waiting for a change", since=since - 1)
        serving.put("helper.py", "WORD = 'here'\n")
        serving.edit(SERVICE)

        serving.wait_event(event="all_ready")
        serving.when_ready()
        serving.wait_worker("web.0", status="here")
        assert serving.worker("web.0")["restarts"] == 0
        assert serving.terminate() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("is_watching", [False, True], ids=["at once", "later"])
def test_watch_can_be_stopped_while_waiting(
    number: signal.Signals, is_watching: bool
) -> None:
    """It also works when the watch has only been announced."""
    with open_serving("(", is_ready=False, words=["--watch"]) as serving:
        serving.wait_line("waiting for a change")
        while is_watching and not watches(serving.process.pid):
            assert serving.process.poll() is None

        serving.process.send_signal(number)

        assert serving.wait_exit() == 128 + number
        serving.wait_nothing_left()
        assert serving.files() == set()
