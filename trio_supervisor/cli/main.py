"""The verbs, their options, and what becomes of their errors."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

from trio_supervisor._version import __version__
from trio_supervisor.cli.encoding import guarded_streams
from trio_supervisor.errors import (
    CallFailedError,
    PlatformError,
    RemoteProtocolError,
    SupervisorError,
)
from trio_supervisor.process.shortage import shortage_of, text_of
from trio_supervisor.process.spawn.process_exit import exit_code, exit_process

# The module is loaded once the verb is known.
_VERBS: Final = {
    "serve": "serve:run_serve",
    "status": "status:run_status",
    "workers": "status:run_workers",
    "ping": "status:run_ping",
    "events": "logs:run_events",
    "logs": "logs:run_logs",
    "probe": "status:run_probe",
    "restart": "control:run_restart",
    "reload": "control:run_reload",
    "scale": "control:run_scale",
    "stop": "control:run_stop",
    "start": "control:run_start",
    "shutdown": "control:run_shutdown",
    "post-mortem": "post_mortem:run_post_mortem",
    "thread-dump": "diagnose:run_dump",
    "scheduler-dump": "diagnose:run_dump",
    "lock-dump": "diagnose:run_dump",
    "allocation-trace-start": "diagnose:run_dump",
    "allocation-trace-stop": "diagnose:run_dump",
    "descriptors": "diagnose:run_dump",
    "slow-tasks": "diagnose:run_dump",
    "memory-sample": "diagnose:run_period",
    "garbage-profile": "diagnose:run_period",
    "memory-dump": "diagnose:run_memory_dump",
    "profile": "diagnose:run_profile",
    "doctor": "diagnose:run_doctor",
    "heap": "heap:run_heap",
    "call": "diagnose:run_call",
}
_NAME_HELP: Final = "a worker (worker.2), or a service for all of its workers"
_EPILOG: Final = (
    "exit codes: 0 done, 1 the call failed, 2 usage, 3 no supervisor there, 4 timed "
    "out; serve: 10 the target is bad, 11 somebody serves at the socket, 12 the socket "
    "cannot be made, 13 a worker ended too often, 14 this system cannot supervise, 15 "
    "a significant service failed, 16 a listening socket cannot be bound"
)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    _open_missing_streams()
    with guarded_streams():
        return _run(words)


def _run(words: Sequence[str] | None) -> int:
    parser = make_parser()
    if any("\0" in word for word in (sys.argv[1:] if words is None else words)):
        parser.error("an argument contains a NUL character")
    arguments = parser.parse_args(words)
    try:
        module, _, function = _VERBS[arguments.verb].partition(":")
        run: Callable[[argparse.Namespace], None] = getattr(
            importlib.import_module(f"trio_supervisor.cli.{module}"), function
        )
        with _expecting_anything(arguments.verb):
            run(arguments)
            sys.stdout.flush()
    except SupervisorError as exc:
        print(f"trio_supervisor: {_message(exc)}", file=sys.stderr)
        return exc.exit_code
    except BrokenPipeError:
        # Whoever reads our output has enough. Python would complain at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as exc:
        if not (problem := _shortage(exc)):
            raise
        print(f"trio_supervisor: {arguments.verb}: {problem}", file=sys.stderr)
        return PlatformError.exit_code if arguments.verb == "serve" else 1
    return 0


def _shortage(exc: Exception) -> str:
    """Return which limit of this process, or of the system, is behind *exc*."""
    try:
        short = shortage_of(exc)
        return "" if short is None else text_of(short)
    except MemoryError:
        return "cannot allocate memory"


def _message(exc: SupervisorError) -> str:
    """Return what *exc* says; what a peer says has no line that looks like ours."""
    text = str(exc)
    return text.replace("\n", "\n  ") if isinstance(exc, CallFailedError) else text


@contextmanager
def _expecting_anything(verb: str) -> Iterator[None]:
    """Have an answer, or a file, of the wrong shape be the fault of who made it.

    To give every answer a type takes longer than the whole command: it is taken apart
    as it is.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as exc:
        if verb == "serve":
            raise
        what = f"{type(exc).__name__}: {exc}"
        raise RemoteProtocolError(
            f"what was answered does not fit ({what:.200}); is it trio_supervisor, and "
            f"of this version, that serves there?"
        ) from exc


def run_and_leave() -> NoReturn:
    """Run one command, and end this process with its exit code.

    After `serve`, the interpreter teardown that `exit_process` skips would take 40 ms.
    """
    try:
        code = main()
    except SystemExit as exc:
        code = exit_code(exc)
    exit_process(code)


def _open_missing_streams() -> None:
    """Have standard streams where the shell has closed them (``2>&-``).

    Else the next socket would get their numbers, and every line of a log with them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)  # our children need them as well
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="trio_supervisor",
        description="Run worker processes, watch them, and replace what is unhealthy.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(
        dest="verb",
        required=True,
        metavar="VERB",
        prog=parser.prog,  # to find it out, argparse loads half a dozen modules
    )

    serve = verbs.add_parser("serve", help="run an application in the foreground")
    serve.add_argument(
        "target",
        help="service.py or package.module, with :name if it is not `application`",
    )
    _add_socket(
        serve,
        "default: $TRIO_SUPERVISOR_SOCKET, or supervisor.ipc beside the file",
    )
    serve.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="of the log, and of what workers print",
    )
    serve.add_argument(
        "--http",
        metavar="ADDRESS",
        help="answer /livez, /readyz and /startupz at HOST:PORT, :PORT or unix:PATH",
    )
    serve.add_argument(
        "--import-timeout",
        type=_seconds,
        default=120.0,
        metavar="S",
        help="limit for importing the application; default: 120",
    )
    serve.add_argument(
        "--state",
        metavar="DIRECTORY",
        help="where post-mortems are kept; default: $STATE_DIRECTORY, or "
        "supervisor.state beside the socket",
    )
    serve.add_argument(
        "--watch", action="store_true", help="reload when the code changes"
    )

    status = _add_verb(verbs, "status", "show supervisor, workers and monitors", 10)
    status.add_argument(
        "--wait-ready", action="store_true", help="first wait until all are ready"
    )
    _add_verb(verbs, "workers", "show the workers", 10)
    _add_verb(verbs, "ping", "see whether the supervisor answers", 10)

    restart = _add_verb(verbs, "restart", "replace workers gracefully; wait", 120)
    restart.add_argument("names", nargs="*", metavar="NAME", help=_NAME_HELP)
    restart.add_argument(
        "--rolling", action="store_true", help="one after the other, each when ready"
    )
    restart.add_argument(
        "--max-unavailable",
        type=_positive,
        default=1,
        metavar="N",
        help="with --rolling: so many workers of a service at once; default: 1",
    )
    reload = _add_verb(verbs, "reload", "import the application afresh; wait", 300)
    reload.add_argument(
        "--dry-run", action="store_true", help="only show what would be done"
    )
    reload.add_argument(
        "--changed-only",
        action="store_true",
        help="keep workers whose declaration and code are as they were",
    )
    reload.add_argument(
        "--abort", action="store_true", help="give up the one that is under way"
    )
    scale = _add_verb(verbs, "scale", "change the number of workers; wait", 120)
    scale.add_argument(
        "counts", nargs="+", type=_count, metavar="SERVICE=N", help="as worker=8"
    )
    _add_listening(verbs)
    for verb, text in (
        ("stop", "end workers, and leave them ended; wait"),
        ("start", "start workers that do not run; wait until they are ready"),
    ):
        added = _add_verb(verbs, verb, text, 120)
        added.add_argument("names", nargs="+", metavar="NAME", help=_NAME_HELP)
    shutdown = _add_verb(verbs, "shutdown", "stop everything; wait", 120)
    shutdown.add_argument(
        "--no-wait", action="store_true", help="return when it has begun"
    )

    probe = _add_verb(verbs, "probe", "exit 0 if all is well, 1 if not", 10)
    probe.add_argument("kind", choices=("startup", "readiness", "liveness"))

    _add_diagnostics(verbs)
    post_mortem = _add_verb(
        verbs, "post-mortem", "show what is known of workers that came to a bad end", 10
    )
    post_mortem.add_argument(
        "name", nargs="?", metavar="NAME", help="a worker, a service, a pid or a file"
    )
    post_mortem.add_argument(
        "--state",
        metavar="DIRECTORY",
        help="default: $STATE_DIRECTORY, or supervisor.state beside the socket",
    )
    call = _add_verb(verbs, "call", "run any operation in a worker", 60)
    call.add_argument("name", metavar="NAME", help=_NAME_HELP)
    call.add_argument(
        "operation", nargs="?", metavar="OPERATION", help="as thread_dump"
    )
    call.add_argument(
        "--list", action="store_true", help="show what the worker answers"
    )
    call.add_argument("fields", nargs="*", metavar="key=value", help="its arguments")
    return parser


def _add_diagnostics(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    dumps = {
        "thread-dump": "show the stacks of all threads",
        "scheduler-dump": "show the tree of tasks of the event loop",
        "allocation-trace-start": "have memray trace every allocation",
        "allocation-trace-stop": "end that, and show what was not freed",
        "lock-dump": "show which threads wait for which locks",
        "descriptors": "show what files, sockets and pipes are open",
        "slow-tasks": "show what kept the main loop from coming round",
    }
    periods = {
        "memory-sample": ("show what is allocated and stays, and who holds it", 10),
        "garbage-profile": ("show what the garbage collector does", 10),
        "doctor": ("say in plain words what is wrong; exit 1 if something is", 5),
        "profile": ("sample all threads and tasks", 10),
    }
    parsers = {name: _add_verb(verbs, name, dumps[name], 10) for name in dumps}
    parsers["thread-dump"].add_argument(
        "--locals", action="store_true", help="with the values of variables, cut short"
    )
    for name, (text, seconds) in periods.items():
        parser = parsers[name] = _add_verb(verbs, name, text, None)
        parser.add_argument(
            "--duration",
            type=_seconds,
            default=seconds,
            metavar="S",
            help=f"for how many seconds; default: {seconds}",
        )
    parsers["memory-sample"].add_argument(
        "--engine",
        choices=("snapshots", "memray"),
        default="snapshots",
        help="memray: exact places, at a price; default: snapshots",
    )
    parsers["profile"].add_argument(
        "--format",
        choices=("speedscope", "collapsed"),
        default="speedscope",
        help="default: speedscope",
    )
    parsers["profile"].add_argument(
        "--interval", type=_seconds, default=0.01, metavar="S", help="between two looks"
    )
    parsers["profile"].add_argument(
        "-o", "--output", metavar="FILE", help="a new file; default: standard output"
    )
    parsers["memory-dump"] = _add_verb(
        verbs, "memory-dump", "write the heap to a file", None
    )
    parsers["memory-dump"].add_argument(
        "--path", metavar="FILE", help="a new file; default: one in the worker's TMPDIR"
    )
    parsers["memory-dump"].add_argument(
        "--values",
        action="store_true",
        help="with strings and numbers, cut short: there may be secrets in them",
    )
    for parser in parsers.values():
        parser.add_argument("name", metavar="NAME", help=_NAME_HELP)
    heap = verbs.add_parser("heap", help="summarise a heap's dump, or compare some")
    heap.add_argument("files", nargs="+", metavar="FILE", help="one, two or three")
    heap.add_argument("--json", action="store_true", help="for programs")


def _add_listening(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    events = _add_verb(verbs, "events", "show what happened lately", 10)
    logs = _add_verb(verbs, "logs", "show what workers printed lately", 10)
    logs.add_argument("names", nargs="*", metavar="NAME", help=_NAME_HELP)
    logs.add_argument(
        "--tail",
        type=_natural,
        default=100,
        metavar="N",
        help="how many lines of before; default: 100",
    )
    for parser in (events, logs):
        parser.add_argument(
            "-f", "--follow", action="store_true", help="go on until Ctrl-C"
        )


def _add_verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    timeout: float | None,
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text)
    _add_socket(parser, "default: $TRIO_SUPERVISOR_SOCKET, or supervisor.ipc here")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=timeout,
        metavar="S",
        help="give up after so many seconds; default: "
        + ("long enough" if timeout is None else f"{timeout:g}"),
    )
    return parser


def _add_socket(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--socket", metavar="PATH", help=text)


def _natural(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        problem = f"expected a whole number, 0 or more, not {text!r}"
        raise argparse.ArgumentTypeError(problem)
    return int(text)


def _positive(text: str) -> int:
    if (value := _natural(text)) < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return value


def _count(text: str) -> tuple[str, int]:
    name, equals, number = text.partition("=")
    if not name or not equals:
        problem = f"expected SERVICE=N, not {text!r}"
        raise argparse.ArgumentTypeError(problem)
    return name, _natural(number)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds, more than 0, not {text!r}")
    return value
