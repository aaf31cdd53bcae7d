"""Print a configuration of another process manager as supervisor.toml."""

from __future__ import annotations

from argparse import Namespace


def run_import_supervisord(arguments: Namespace) -> None:
    """Print a supervisord configuration as supervisor.toml."""
    from trio_supervisor.config.from_supervisord import convert_supervisord

    print(convert_supervisord(arguments.file), end="")


def run_import_pm2(arguments: Namespace) -> None:
    """Print an ecosystem file of pm2 as supervisor.toml."""
    from trio_supervisor.config.from_pm2 import convert_pm2

    print(convert_pm2(arguments.file), end="")
