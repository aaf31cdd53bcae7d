"""Test the signal dispositions of workers and commands."""

from __future__ import annotations

import signal

from tests.kits.serving import open_serving

SERVICE = """
import os, signal, time
from trio_supervisor import Application, Command, Service, SyncWorker

def look(worker: SyncWorker) -> None:
    with open("/proc/self/status") as file:
        lines = [line.split() for line in file]
    masks = [words[1] for words in lines if words[0] in ("SigBlk:", "SigIgn:")]
    worker.status(" ".join(masks))
    worker.ready()
    worker.stopping.wait()

show = "grep -E 'Sig(Blk|Ign)' /proc/self/status >&2; exec sleep 1000"
application = Application(
    services=[
        Service("forked", look, backend="sync"),
        Service("executed", look, backend="sync", start_method="exec"),
        Command("command", ["sh", "-c", show]),
    ]
)
"""
# Like a script's `serve &` without job control, nohup, and a careless parent.
PREFIX = [
    "env",
    "--ignore-signal=HUP,INT,QUIT,USR2,TSTP,TTOU",
    "--block-signal=TERM,USR1",
]


def test_children_start_with_default_signal_dispositions() -> None:
    with open_serving(SERVICE, prefix=PREFIX) as serving:
        serving.when_ready()
        pythons = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
        for name in ("forked.0", "executed.0"):
            blocked, ignored = serving.worker(name)["status"].split()
            assert (int(blocked, 16), int(ignored, 16)) == (0, pythons), name
        for field in ("SigBlk", "SigIgn"):
            serving.printed("command.0", f"{field}:\t{0:016x}")
        # SIGTERM was blocked when it started.
        assert serving.terminate() == 0
