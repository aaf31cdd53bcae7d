"""Test the output of workers and commands after the controller was killed."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from tests.kits.serving import (
    PATIENCE,
    find_guardian,
    guardian_of,
    open_serving,
    wait_gone,
)

SERVICE = """
import sys
from trio_supervisor import Application, Command, Service, Worker

async def work(worker: Worker) -> None:
    await worker.ready()
    await worker.stopping.wait()
    for number in range(500):
        # One write(2): print() has several, and the agent's thread logs in between.
        sys.stderr.write(f"worker says goodbye {number}\\n")
    open("worker-cleaned", "w").close()

# It prints all the time, so also in the moment at which the controller dies.
chatty = "trap 'n=0; while [ $n -lt 500 ]; do n=$((n+1)); echo goodbye $n >&2; " \\
    "done; printf unfinished >&2; echo > NAME-cleaned; exit 0' TERM; " \\
    "while :; do echo working >&2; sleep 0.001; done"
quiet = chatty.replace("echo working >&2; ", "")
deaf = "trap '' TERM; while :; do echo x; sleep 0.01; done"
application = Application(
    services=[
        Service("worker", work),
        Command("chatty", ["sh", "-c", chatty.replace("NAME", "chatty")],
                log_file="chatty.log"),
        Command("quiet", ["sh", "-c", quiet.replace("NAME", "quiet")]),
        Command("deaf", ["sh", "-c", deaf], stop_timeout=1),
    ]
)
"""
CLEANED = ("worker-cleaned", "chatty-cleaned", "quiet-cleaned")


def pipes_of(process_id: int) -> int:
    """Return the number of pipes that a process has open."""
    found = 0
    with suppress(OSError):
        for name in os.listdir(f"/proc/{process_id}/fd"):
            target = os.readlink(f"/proc/{process_id}/fd/{name}")
            found += target.startswith("pipe:")
    return found


def test_killed_controller_output_during_clean_up_is_kept() -> None:
    """A replacement guardian gets the same pipes as the first one."""
    with open_serving(SERVICE) as serving:
        serving.until((serving.directory / "chatty.log").exists, "its log")
        old = guardian_of(serving)
        os.kill(old, signal.SIGKILL)
        wait_gone([old])
        serving.until(lambda: find_guardian(serving), "another one")
        # Two for each of the four processes, one of ours, and its own input.
        serving.until(lambda: pipes_of(guardian_of(serving)) >= 10, "its pipes")

        serving.process.kill()

        serving.wait_nothing_left(PATIENCE)
        assert serving.wait_exit() == -signal.SIGKILL
        assert all((serving.directory / name).exists() for name in CLEANED)
        said = [e for e in serving.events if "goodbye" in e["message"]]
        assert [e["message"] for e in said if e["name"] == "worker.0"] == [
            f"worker says goodbye {number}" for number in range(500)
        ]
        assert [e["message"] for e in said if e["name"] == "quiet.0"] == [
            f"goodbye {number}" for number in range(1, 501)
        ]
        assert serving.wait_line("unfinished")
        log = (serving.directory / "chatty.log").read_text()
        assert log.endswith("goodbye 499\ngoodbye 500\nunfinished")
