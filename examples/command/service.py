"""Supervise other programs, with and without sd_notify."""

import sys
from pathlib import Path

from trio_supervisor import Application, Command

HERE = Path(__file__).parent

application = Application(
    name="command",
    services=[
        # Ready as soon as it has started: it reports nothing.
        Command("sleeper", ["sleep", "infinity"]),
        # Ready when it sends READY=1; replaced when its heartbeats stop.
        Command(
            "clock",
            [sys.executable, str(HERE / "clock.py")],
            notify=True,
            health_check_timeout=10,
            environment={"CLOCK_INTERVAL": "1"},
        ),
    ],
)
