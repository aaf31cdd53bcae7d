"""Run the command line: ``python -m trio_supervisor``."""

from __future__ import annotations

from trio_supervisor.cli.main import run_and_exit

if __name__ == "__main__":
    run_and_exit()
