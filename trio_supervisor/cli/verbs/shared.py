"""Arguments and exit codes that several verbs have."""

from __future__ import annotations

from typing import Final

from trio_supervisor.cli.exit_codes import meanings
from trio_supervisor.cli.verbs.values import moment, seconds
from trio_supervisor.cli.verbs.verb import AFTER_OBSERVING, Argument, argument

LOCAL_CODES: Final = meanings(0, 1, 2, 130)
CALL_CODES: Final = meanings(0, 1, 2, 3, 4, 130)

JSON: Final = argument("--json", action="store_true", help="print JSON")
SOCKET: Final = argument(
    "--socket",
    metavar="PATH",
    help="socket of the supervisor",
    shown_default="$TRIO_SUPERVISOR_SOCKET, else ./supervisor.ipc",
)
TARGET: Final = argument(
    "target",
    nargs="?",
    metavar="TARGET",
    help="service.py, package.module (:NAME), or a .toml or Procfile",
    shown_default="service.py, supervisor.toml, pyproject.toml or Procfile found here",
)
IMPORT_TIMEOUT: Final = argument(
    "--import-timeout",
    type=seconds,
    default=120.0,
    metavar="S",
    help="seconds that the import of the application may take",
    shown_default="120",
)
STATE: Final = argument(
    "--state",
    metavar="DIRECTORY",
    help="directory of post-mortems and of past events",
    shown_default="$STATE_DIRECTORY, else supervisor.state beside the socket",
)
SINCE: Final = argument(
    "--since",
    type=moment,
    metavar="TIME",
    help="only from then on: 90s, 10m, 2h, 3d ago; or ISO 8601",
)
FOLLOW: Final = argument(
    "-f", "--follow", action="store_true", help="keep printing until Ctrl-C"
)
_NAME_HELP: Final = "a worker (web.0), its pid, or a service for all its workers"
NAME: Final = argument("name", metavar="NAME", help=_NAME_HELP)
SOME_NAMES: Final = argument("names", nargs="+", metavar="NAME", help=_NAME_HELP)
SHOWN_NAMES: Final = argument(
    "names",
    nargs="*",
    metavar="NAME",
    help="a worker (web.0), a service or a pattern ('web.*')",
)
ALL: Final = argument("--all", action="store_true", help="all workers; or name `all`")
CHANGED_NAMES: Final = argument(
    "names",
    nargs="*",
    metavar="NAME",
    help="a worker (web.0), its pid, a service or a pattern ('web.*')",
)
ANY_NAMES: Final = argument("names", nargs="*", metavar="NAME", help=_NAME_HELP)


def call_options(timeout: float | None) -> tuple[Argument, ...]:
    """Return the options of a verb that calls a supervisor.

    Args:
        timeout: The default of ``--timeout`` [s]; None: it depends on ``--duration``.
    """
    shown = f"--duration + {AFTER_OBSERVING:g}" if timeout is None else f"{timeout:g}"
    limit = argument(
        "--timeout",
        type=seconds,
        default=timeout,
        metavar="S",
        help="seconds to wait for the answer",
        shown_default=shown,
    )
    return SOCKET, JSON, limit


def duration(default: float) -> Argument:
    """Return the option ``--duration``.

    Args:
        default: How long the worker is observed without it [s].
    """
    return argument(
        "--duration",
        type=seconds,
        default=default,
        metavar="S",
        help="seconds to observe the worker",
    )
