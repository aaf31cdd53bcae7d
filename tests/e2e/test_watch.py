"""``serve --watch``: what was written is what runs."""

from __future__ import annotations

import signal

import pytest

from tests.e2e.serving import open_serving

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


def test_a_change_is_reloaded_and_a_mistake_waits_for_the_next() -> None:
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


def test_what_does_not_import_at_first_is_waited_for() -> None:
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


def test_it_can_be_ended_while_it_waits() -> None:
    with open_serving("(", is_ready=False, words=["--watch"]) as serving:
        serving.wait_line("waiting for a change")

        serving.process.send_signal(signal.SIGTERM)

        assert serving.wait_exit() == 128 + signal.SIGTERM
        serving.wait_nothing_left()
        assert serving.files() == set()
