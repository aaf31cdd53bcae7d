"""Verbs that run an application."""

from __future__ import annotations

from typing import Final

from trio_supervisor.cli.exit_codes import MEANINGS, meanings
from trio_supervisor.cli.verbs.shared import IMPORT_TIMEOUT, SOCKET, STATE, TARGET
from trio_supervisor.cli.verbs.verb import Example, Verb, argument

_CODES: Final = {
    **MEANINGS,
    0: "everything was stopped, as requested",
    130: "Ctrl-C before the application was started",
}
del _CODES[3], _CODES[4]

_SERVICE: Final = argument("service", metavar="SERVICE", help="name of a service")
_TARGET: Final = argument(
    "--target",
    metavar="TARGET",
    help="the application: see serve",
    shown_default="what is found here",
)
_PROCESS_CODES: Final = {
    **meanings(0, 1, 2, 10, 14, 16),
    0: "it succeeded; else its own exit code, or 127: not found",
}

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
            argument(
                "--otlp",
                metavar="URL",
                help="export by OpenTelemetry to http://HOST:PORT, or env",
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
    Verb(
        name="run",
        group="run",
        help="run one service in the foreground, for debugging",
        description="Run one process of a service with this terminal, without a "
        "supervisor: pdb works, and Ctrl-C ends it. It has the service's sockets, "
        "environment, directory, user and limits. What it depends on is not started.",
        arguments=(_SERVICE, _TARGET, IMPORT_TIMEOUT),
        examples=(Example("run web", "run one worker of web"),),
        exit_codes=_PROCESS_CODES,
        handler="foreground:run_run",
    ),
    Verb(
        name="exec",
        group="run",
        help="run a command in the surroundings of a service",
        description="Run a command with the environment, directory, user and limits "
        "of a service, and this terminal.",
        arguments=(
            _SERVICE,
            argument(
                "words",
                nargs="+",
                metavar="COMMAND",
                help="the command, after --",
            ),
            _TARGET,
            IMPORT_TIMEOUT,
        ),
        examples=(
            Example("exec web -- env", "print the environment of web"),
            Example("exec web -- python manage.py migrate", "run a command of Django"),
        ),
        exit_codes=_PROCESS_CODES,
        handler="foreground:run_exec",
    ),
)
