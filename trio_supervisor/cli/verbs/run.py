"""Verbs that run an application."""

from __future__ import annotations

from typing import Final

from trio_supervisor.cli.exit_codes import MEANINGS
from trio_supervisor.cli.verbs.shared import IMPORT_TIMEOUT, SOCKET, STATE, TARGET
from trio_supervisor.cli.verbs.verb import Example, Verb, argument

_CODES: Final = {
    **MEANINGS,
    0: "everything was stopped, as requested",
    130: "Ctrl-C before the application was started",
}
del _CODES[3], _CODES[4]

VERBS: Final = (
    Verb(
        name="serve",
        group="run",
        help="run an application in the foreground",
        description="Start the supervisor and all workers of an application, and "
        "restart workers that exit. SIGTERM or Ctrl-C stops everything gracefully, a "
        "second one kills what still runs; SIGHUP reloads the application.",
        arguments=(
            TARGET,
            SOCKET._replace(
                shown_default="$TRIO_SUPERVISOR_SOCKET, else supervisor.ipc beside the "
                "file"
            ),
            argument(
                "--log-format",
                choices=("text", "json"),
                default="text",
                help="format of the log and of workers' output",
            ),
            argument(
                "--http",
                metavar="ADDRESS",
                help="serve /readyz, /livez, /metrics … at HOST:PORT or unix:PATH",
            ),
            IMPORT_TIMEOUT,
            STATE,
            argument(
                "--watch", action="store_true", help="reload when the code changes"
            ),
        ),
        examples=(
            Example("serve", "serve service.py, supervisor.toml, ... found here"),
            Example(
                "serve shop.main:backend --log-format json --http :8080",
                "serve another name, log JSON, answer health checks",
            ),
        ),
        exit_codes=dict(sorted(_CODES.items())),
        handler="serve:run_serve",
    ),
)
