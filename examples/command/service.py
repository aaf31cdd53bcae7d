"""Any other program, supervised as well: with sd_notify where it knows that."""

import sys
from pathlib import Path

from trio_supervisor import Application, Command

HERE = Path(__file__).parent

application = Application(
    name="command",
    services=[
        # Ready once it is started: it says nothing of itself.
        Command("sleeper", ["sleep", "infinity"]),
        # Ready when it says so; replaced when its heartbeats stop.
        Command(
            "clock",
            [sys.executable, str(HERE / "clock.py")],
            notify=True,
            health_check_timeout=10,
            environment={"CLOCK_INTERVAL": "1"},
        ),
    ],
)
