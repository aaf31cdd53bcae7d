"""What a thread used of the processors: in a forked process, on one that is shared."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.kits.places import ROOT

PROGRAM = """
import json, os, signal, threading, time
from trio_supervisor.worker.doctor.cpu_clock import ThreadClock

signal.alarm(60)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
rival = os.fork()
while not rival:
    pass
if (child := os.fork()) == 0:
    clock = ThreadClock(threading.main_thread().ident)
    used = time.process_time()
    while time.process_time() < used + 0.5:
        pass
    print(json.dumps([clock.cpu, clock.queued]), flush=True)
    os._exit(0)
os.waitpid(child, 0)
os.kill(rival, signal.SIGKILL)
os.waitpid(rival, 0)
"""


def test_thread_clock_measures_cpu_wait_in_forked_process() -> None:
    """Its main thread has another number than that of the process that forked it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    cpu, queued = json.loads(done.stdout)

    assert 0 < cpu < 0.9
    assert queued > 0.1
