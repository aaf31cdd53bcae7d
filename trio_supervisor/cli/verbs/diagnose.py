"""Verbs that show what a worker does, and what is wrong with it."""

from __future__ import annotations

from typing import Final

from trio_supervisor.cli.verbs.shared import (
    CALL_CODES,
    JSON,
    LOCAL_CODES,
    NAME,
    SOCKET,
    STATE,
    call_options,
    duration,
)
from trio_supervisor.cli.verbs.values import seconds
from trio_supervisor.cli.verbs.verb import AFTER_OBSERVING, Example, Verb, argument

VERBS: Final = (
    Verb(
        name="doctor",
        group="diagnose",
        help="diagnose a worker: leaks, blocked loops, deadlocks",
        description="Observe a worker for a few seconds, and report problems with "
        "their cause and remedy.",
        arguments=(NAME, duration(5), *call_options(None)),
        examples=(
            Example("doctor web.0", "diagnose one worker"),
            Example("doctor web --duration 30", "diagnose all workers of web"),
        ),
        exit_codes={
            **CALL_CODES,
            0: "no problem found",
            1: "a problem was found, or the diagnosis failed",
            2: "no problem found, but not all could be examined; or usage error",
        },
        handler="diagnose:run_doctor",
    ),
    Verb(
        name="thread-dump",
        group="diagnose",
        help="show the stacks of all threads",
        description="Show the stacks of all threads of a worker, even if it is "
        "blocked.",
        arguments=(
            NAME,
            argument(
                "--locals",
                action="store_true",
                help="include local variables, shortened",
            ),
            *call_options(10),
        ),
        examples=(Example("thread-dump web.0 --locals", "include local variables"),),
        exit_codes=CALL_CODES,
        handler="diagnose:run_dump",
    ),
    Verb(
        name="scheduler-dump",
        group="diagnose",
        help="show the task tree of the event loop",
        description="Show the tree of tasks of a worker's event loop, and where each "
        "task waits.",
        arguments=(NAME, *call_options(10)),
        examples=(Example("scheduler-dump web.0", "show the tasks of web.0"),),
        exit_codes=CALL_CODES,
        handler="diagnose:run_dump",
    ),
    Verb(
        name="slow-tasks",
        group="diagnose",
        help="show what blocked the event loop",
        description="Show when a worker's event loop was blocked, for how long, and "
        "by which line of code.",
        arguments=(NAME, *call_options(10)),
        examples=(Example("slow-tasks web.0", "show what blocked web.0"),),
        exit_codes=CALL_CODES,
        handler="diagnose:run_dump",
    ),
    Verb(
        name="lock-dump",
        group="diagnose",
        help="show which threads wait for which locks",
        description="Show which threads and tasks of a worker wait for which locks, "
        "who holds these, and deadlocks.",
        arguments=(NAME, *call_options(10)),
        examples=(Example("lock-dump web.0", "show the locks of web.0"),),
        exit_codes=CALL_CODES,
        handler="diagnose:run_dump",
    ),
    Verb(
        name="descriptors",
        group="diagnose",
        help="show open files, sockets and pipes",
        description="Show the open files, sockets and pipes of a worker.",
        arguments=(NAME, *call_options(10)),
        examples=(Example("descriptors web.0", "show what web.0 has open"),),
        exit_codes=CALL_CODES,
        handler="diagnose:run_dump",
    ),
    Verb(
        name="memory-sample",
        group="diagnose",
        help="show memory allocated and kept, and what holds it",
        description="Observe a worker's allocations for a while, and show what is "
        "still allocated at the end, and what holds it.",
        arguments=(
            NAME,
            duration(10),
            argument(
                "--engine",
                choices=("snapshots", "memray"),
                default="snapshots",
                help="memray finds exact lines, at a higher overhead",
            ),
            *call_options(None),
        ),
        examples=(
            Example("memory-sample web.0 --duration 60", "observe web.0 for a minute"),
        ),
        exit_codes=CALL_CODES,
        handler="diagnose:run_period",
    ),
    Verb(
        name="memory-dump",
        group="diagnose",
        help="write the heap of a worker to a file",
        description="Write the heap of a worker to a file, for `heap`.",
        arguments=(
            NAME,
            argument(
                "--path",
                metavar="FILE",
                help="file to create",
                shown_default="a new file in the worker's TMPDIR",
            ),
            argument(
                "--values",
                action="store_true",
                help="include shortened strings and numbers (may be secret)",
            ),
            *call_options(AFTER_OBSERVING),
        ),
        examples=(Example("memory-dump web.0 --path 1.heap", "write the heap here"),),
        exit_codes=CALL_CODES,
        handler="diagnose:run_memory_dump",
    ),
    Verb(
        name="heap",
        group="diagnose",
        help="summarize a heap dump, or compare dumps",
        description="Summarize a heap dump, or show what grew between two or three of "
        "them. Needs no supervisor.",
        arguments=(
            argument(
                "files",
                nargs="+",
                metavar="FILE",
                help="one, two or three heap dumps, the oldest first",
            ),
            JSON,
        ),
        examples=(
            Example("heap 1.heap", "summarize one dump"),
            Example("heap 1.heap 2.heap 3.heap", "show what keeps growing"),
        ),
        exit_codes=LOCAL_CODES,
        handler="heap:run_heap",
    ),
    Verb(
        name="garbage-profile",
        group="diagnose",
        help="show what the garbage collector does",
        description="Show how often a worker's garbage collector ran, for how long, "
        "and what it collected.",
        arguments=(NAME, duration(10), *call_options(None)),
        examples=(Example("garbage-profile web.0", "observe web.0 for 10 s"),),
        exit_codes=CALL_CODES,
        handler="diagnose:run_period",
    ),
    Verb(
        name="profile",
        group="diagnose",
        help="take a sampling profile of threads and tasks",
        description="Sample the stacks of all threads and tasks of one worker.",
        arguments=(
            NAME,
            duration(10),
            argument(
                "--format",
                choices=("speedscope", "collapsed"),
                default="speedscope",
                help="format of the profile",
            ),
            argument(
                "--interval",
                type=seconds,
                default=0.01,
                metavar="S",
                help="seconds between two samples",
            ),
            argument(
                "-o",
                "--output",
                metavar="FILE",
                help="file to create",
                shown_default="standard output",
            ),
            *call_options(None),
        ),
        examples=(
            Example(
                "profile web.0 -o web.speedscope.json",
                "write a profile for speedscope.app",
            ),
        ),
        exit_codes=CALL_CODES,
        handler="diagnose:run_profile",
    ),
    Verb(
        name="allocation-trace-start",
        group="diagnose",
        help="start tracing every allocation with memray",
        description="Have memray trace every allocation of a worker, until "
        "`allocation-trace-stop`.",
        arguments=(NAME, *call_options(10)),
        examples=(Example("allocation-trace-start web.0", "start tracing web.0"),),
        exit_codes=CALL_CODES,
        handler="diagnose:run_dump",
    ),
    Verb(
        name="allocation-trace-stop",
        group="diagnose",
        help="stop tracing, and show what was not freed",
        description="Stop tracing the allocations of a worker, and show what was "
        "allocated and not freed.",
        arguments=(NAME, *call_options(10)),
        examples=(Example("allocation-trace-stop web.0", "show what was not freed"),),
        exit_codes=CALL_CODES,
        handler="diagnose:run_dump",
    ),
    Verb(
        name="post-mortem",
        group="diagnose",
        help="show post-mortems of workers that crashed or hung",
        description="List the post-mortems of workers that crashed, hung or were "
        "killed, or show the latest of one worker. Needs no supervisor.",
        arguments=(
            argument(
                "name",
                nargs="?",
                metavar="NAME",
                help="a worker, a service, a pid or a file of the list",
            ),
            STATE,
            SOCKET,
            JSON,
            argument("--timeout", type=seconds, help=""),
        ),
        examples=(
            Example("post-mortem", "list all post-mortems"),
            Example("post-mortem web.0", "show the latest of web.0"),
        ),
        exit_codes={**LOCAL_CODES, 1: "failed: no post-mortem of that name"},
        handler="post_mortem:run_post_mortem",
    ),
    Verb(
        name="explain",
        group="diagnose",
        help="explain an error, exit code, finding or option",
        description="Show what a code means, its usual causes, and what to do. A code "
        "is the name of an error, an exit code, the cause of a restart, the kind of a "
        "finding, or an option. Without one, list all. No supervisor is needed.",
        arguments=(
            argument(
                "code",
                nargs="?",
                metavar="CODE",
                help="such as NoSuchWorker, exit-13, leak or stop_timeout",
                shown_default="list all",
            ),
            JSON,
        ),
        examples=(
            Example("explain exit-13", "explain an exit code"),
            Example("explain health_check_timeout", "explain an option"),
        ),
        exit_codes={**LOCAL_CODES, 1: "the code is unknown"},
        handler="explain:run_explain",
    ),
    Verb(
        name="call",
        group="diagnose",
        help="run any operation in a worker",
        description="Run an operation in a worker, one of its own or one that its "
        "service has added, and print the answer as JSON. A value that is valid JSON "
        "is sent as JSON, any other as a string.",
        arguments=(
            NAME,
            argument(
                "operation",
                nargs="?",
                metavar="OPERATION",
                help="name of the operation, such as thread_dump",
            ),
            argument(
                "--list",
                action="store_true",
                help="list the operations of the worker",
            ),
            argument(
                "fields",
                nargs="*",
                metavar="KEY=VALUE",
                help="arguments of the operation",
            ),
            *call_options(60),
        ),
        examples=(
            Example("call web.0 --list", "list the operations of web.0"),
            Example("call web.0 memory_sample duration=5", "run one of them"),
        ),
        exit_codes=CALL_CODES,
        handler="diagnose:run_call",
    ),
)
