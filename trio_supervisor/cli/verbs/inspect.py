"""Verbs that show the state of a running application, and change nothing."""

from __future__ import annotations

from typing import Final

from trio_supervisor.cli.exit_codes import meanings
from trio_supervisor.cli.verbs.shared import (
    ANY_NAMES,
    CALL_CODES,
    FOLLOW,
    SHOWN_NAMES,
    SINCE,
    SOCKET,
    STATE,
    call_options,
)
from trio_supervisor.cli.verbs.values import natural, seconds
from trio_supervisor.cli.verbs.verb import Example, Verb, argument

VERBS: Final = (
    Verb(
        name="status",
        group="inspect",
        help="show the supervisor, its workers and monitors",
        description="Show the supervisor, its workers, and problems of monitors. With "
        "--wait-ready, wait first until a supervisor runs and all its workers are "
        "ready and connected.",
        arguments=(
            argument(
                "--wait-ready",
                action="store_true",
                help="wait until all workers are ready",
            ),
            argument(
                "--watch",
                action="store_true",
                help="show it again and again, until Ctrl-C",
            ),
            argument(
                "--interval",
                type=seconds,
                default=2.0,
                metavar="S",
                help="seconds between two looks of --watch",
            ),
            SHOWN_NAMES,
            *call_options(10),
        ),
        examples=(
            Example("status web --watch", "watch the workers of web"),
            Example(
                "status --wait-ready --timeout 60",
                "wait at most a minute until all are ready",
            ),
        ),
        exit_codes={
            **CALL_CODES,
            1: "failed; with --wait-ready also: a worker has failed for good",
            4: "timed out; with --wait-ready: not all workers were ready in time",
        },
        handler="status:run_status",
    ),
    Verb(
        name="top",
        group="inspect",
        help="show a live view of services and workers",
        description="Show services and workers on the whole terminal, with CPU and "
        "memory, refreshed until `q` is pressed; keys restart, stop, scale and "
        "diagnose the selected one. Needs textual: "
        "pip install 'trio_supervisor[top]'.",
        arguments=(
            argument(
                "--interval",
                type=seconds,
                default=1.0,
                metavar="S",
                help="seconds between two looks",
            ),
            SOCKET,
            argument(
                "--timeout",
                type=seconds,
                default=10.0,
                metavar="S",
                help="seconds to wait for an answer",
            ),
        ),
        examples=(Example("top", "watch and control all workers"),),
        exit_codes=meanings(0, 1, 2, 14, 130),
        handler="top.command:run_top",
    ),
    Verb(
        name="workers",
        group="inspect",
        help="show the workers",
        description="Show the workers alone, as `status` does.",
        arguments=(SHOWN_NAMES, *call_options(10)),
        examples=(Example("workers --json", "list the workers for a program"),),
        exit_codes=CALL_CODES,
        handler="status:run_workers",
    ),
    Verb(
        name="ping",
        group="inspect",
        help="check that the supervisor responds",
        description="Check that the supervisor responds.",
        arguments=call_options(10),
        examples=(Example("ping --timeout 1", "wait for a response at most 1 s"),),
        exit_codes=CALL_CODES,
        handler="status:run_ping",
    ),
    Verb(
        name="probe",
        group="inspect",
        help="check startup, readiness or liveness",
        description="Check the health of the application as a whole, for exec probes "
        "of Kubernetes and the like.",
        arguments=(
            argument(
                "kind",
                choices=("startup", "readiness", "liveness"),
                help="the health check to make",
            ),
            *call_options(10),
        ),
        examples=(Example("probe readiness", "exit 0 if all workers are ready"),),
        exit_codes={**CALL_CODES, 0: "healthy", 1: "not healthy, or the check failed"},
        handler="status:run_probe",
    ),
    Verb(
        name="metrics",
        group="inspect",
        help="show metrics in Prometheus' text format",
        description="Show the metrics of services, workers and controller, as `serve "
        "--http` has them at /metrics.",
        arguments=(
            argument(
                "--per-worker",
                action="store_true",
                help="show those of each worker's process, not totals of services",
            ),
            *call_options(10),
        ),
        examples=(Example("metrics --per-worker", "show what each worker counts"),),
        exit_codes=CALL_CODES,
        handler="status:run_metrics",
    ),
    Verb(
        name="diff",
        group="inspect",
        help="compare workers before the last reload with now",
        description="Show what each worker used when the last reload began, and what "
        "it uses now: time until it was ready, resident memory, file descriptors and "
        "uptime; and how long the application took to import.",
        arguments=call_options(10),
        examples=(Example("diff", "show what the last reload has changed"),),
        exit_codes=CALL_CODES,
        handler="diff:run_diff",
    ),
    Verb(
        name="events",
        group="inspect",
        help="show recent events: starts, exits, reloads",
        description="Show recent events of workers, supervisor and controller; with -f "
        "also those to come. With --since, --name or --type also those of earlier "
        "controllers, which the state directory has, and no supervisor is needed.",
        arguments=(
            SINCE,
            argument(
                "--name",
                action="append",
                metavar="NAME",
                help="only events of a worker, a service or a pattern ('web.*')",
            ),
            argument(
                "--type",
                action="append",
                metavar="TYPE",
                help="only events of this type, such as exited",
            ),
            FOLLOW,
            STATE,
            *call_options(10),
        ),
        examples=(
            Example("events -f --json", "stream events to a program"),
            Example(
                "events --since 1h --type exited", "show the exits of the last hour"
            ),
        ),
        exit_codes=CALL_CODES,
        handler="events:run_events",
    ),
    Verb(
        name="logs",
        group="inspect",
        help="show recent output of workers",
        description="Show recent output of the named workers, or of all; with -f also "
        "output to come.",
        arguments=(
            ANY_NAMES,
            argument(
                "--tail",
                type=natural,
                metavar="N",
                help="number of past lines to show",
                shown_default="100; 10000 with --since or --grep",
            ),
            SINCE,
            argument(
                "--grep",
                metavar="REGEX",
                help="only lines in which this regular expression matches",
            ),
            FOLLOW,
            *call_options(10),
        ),
        examples=(
            Example("logs web.0 --tail 20", "show the last 20 lines of web.0"),
            Example("logs -f", "follow the output of all workers"),
        ),
        exit_codes=CALL_CODES,
        handler="logs:run_logs",
    ),
)
