"""Verbs that restart, reload, scale, start and stop."""

from __future__ import annotations

from typing import Final

from trio_supervisor.cli.exit_codes import meanings
from trio_supervisor.cli.verbs.shared import (
    ALL,
    CALL_CODES,
    CHANGED_NAMES,
    SOCKET,
    call_options,
)
from trio_supervisor.cli.verbs.values import canary_seconds, positive, service_count
from trio_supervisor.cli.verbs.verb import Example, Verb, argument

VERBS: Final = (
    Verb(
        name="attach",
        group="control",
        help="attach this terminal to that of a worker",
        description="Show what a worker writes as it writes it, and pass what is "
        "typed to the worker if its service has tty=True. Ctrl-C goes to the program. "
        "Ctrl-], or Ctrl-P Ctrl-Q, detaches; the worker keeps running.",
        arguments=(
            argument(
                "name",
                metavar="NAME",
                help="a worker (web.0), or a service with one worker",
            ),
            SOCKET,
        ),
        examples=(Example("attach console.0", "type in the terminal of console.0"),),
        exit_codes={
            **meanings(0, 1, 2, 3, 130),
            0: "detached, or the application has stopped",
        },
        handler="attach:run_attach",
    ),
    Verb(
        name="restart",
        group="control",
        help="restart workers gracefully",
        description="Replace the named workers by new processes, and wait "
        "until these are ready. Workers that were stopped are started, with their "
        "dependencies.",
        arguments=(
            CHANGED_NAMES,
            ALL,
            argument(
                "--rolling",
                action="store_true",
                help="restart a few workers of each service at a time",
            ),
            argument(
                "--max-unavailable",
                type=positive,
                default=1,
                metavar="N",
                help="maximum workers per service restarted at once",
            ),
            *call_options(120),
        ),
        examples=(
            Example("restart web.0", "restart one worker"),
            Example(
                "restart --rolling --max-unavailable 2 web",
                "restart the workers of web, two at a time",
            ),
        ),
        exit_codes=CALL_CODES,
        handler="control:run_restart",
    ),
    Verb(
        name="reload",
        group="control",
        help="import the application again and replace workers",
        description="Import the application again, have a new generation of workers "
        "replace the previous one, and wait for that. If the reload fails, the "
        "previous generation keeps running. With --canary, a few new workers are first "
        "compared with the old ones; if they do worse, the reload is rolled back.",
        arguments=(
            argument(
                "--dry-run",
                action="store_true",
                help="show what would change, and change nothing",
            ),
            argument(
                "--changed-only",
                action="store_true",
                help="keep workers whose declaration and code are unchanged",
            ),
            argument(
                "--canary",
                type=positive,
                metavar="N",
                help="try N new workers of each service first",
            ),
            argument(
                "--for",
                dest="canary_for",
                type=canary_seconds,
                metavar="S",
                help="seconds to compare the canary with old workers",
                shown_default="60",
            ),
            argument(
                "--abort", action="store_true", help="abort the reload in progress"
            ),
            *call_options(300),
        ),
        examples=(
            Example("reload --changed-only", "replace only what has changed"),
            Example("reload --canary 1 --for 60", "try one worker for a minute first"),
        ),
        exit_codes={
            **CALL_CODES,
            1: "the reload failed; the previous generation keeps running",
        },
        handler="control:run_reload",
    ),
    Verb(
        name="scale",
        group="control",
        help="change the number of workers of a service",
        description="Change the number of workers of services, and wait until new "
        "workers are up and surplus ones have exited.",
        arguments=(
            argument(
                "counts",
                nargs="+",
                type=service_count,
                metavar="SERVICE=N",
                help="a service, and its new number of workers",
            ),
            *call_options(120),
        ),
        examples=(Example("scale web=8 jobs=2", "run 8 workers of web, 2 of jobs"),),
        exit_codes={
            **CALL_CODES,
            1: "failed; the previous number of workers was restored",
        },
        handler="control:run_scale",
    ),
    Verb(
        name="stop",
        group="control",
        help="stop workers, and keep them stopped",
        description="Stop the named workers and their dependents, and wait until they "
        "have exited. They stay stopped until `start` or `restart`.",
        arguments=(CHANGED_NAMES, ALL, *call_options(120)),
        examples=(Example("stop web", "stop all workers of web"),),
        exit_codes=CALL_CODES,
        handler="control:run_stop",
    ),
    Verb(
        name="start",
        group="control",
        help="start workers that are stopped",
        description="Start the named workers and their dependencies, and wait until "
        "they are up. If one exits instead, those that this command started are "
        "stopped again.",
        arguments=(CHANGED_NAMES, ALL, *call_options(120)),
        examples=(Example("start web jobs.1", "start all of web, and jobs.1"),),
        exit_codes=CALL_CODES,
        handler="control:run_start",
    ),
    Verb(
        name="shutdown",
        group="control",
        help="stop all workers and the controller",
        description="Stop all workers, the supervisor and the controller, and wait "
        "until they have exited.",
        arguments=(
            argument(
                "--no-wait",
                action="store_true",
                help="return as soon as the shutdown has begun",
            ),
            *call_options(120),
        ),
        examples=(
            Example("shutdown", "stop everything, and wait"),
            Example("shutdown --no-wait", "only begin the shutdown"),
        ),
        exit_codes={
            **CALL_CODES,
            1: "failed, or the controller was killed while shutting down",
            4: "timed out; the shutdown continues",
        },
        handler="control:run_shutdown",
    ),
)
