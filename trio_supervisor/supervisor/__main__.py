"""Run a supervisor that the controller starts with ``python -m``."""

from __future__ import annotations

from trio_supervisor.process.spawn.boot import SupervisorBoot, read_boot
from trio_supervisor.supervisor.main import run_supervisor

if __name__ == "__main__":
    run_supervisor(*read_boot(SupervisorBoot))
