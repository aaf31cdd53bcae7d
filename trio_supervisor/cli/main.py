"""The verbs, their options, and what becomes of their errors."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from trio_supervisor._version import __version__
from trio_supervisor.errors import SupervisorError

# The module is loaded once the verb is known.
_VERBS: Final = {
    "serve": "serve:run_serve",
    "status": "look:run_status",
    "workers": "look:run_workers",
    "ping": "look:run_ping",
    "restart": "steer:run_restart",
    "stop": "steer:run_stop",
    "start": "steer:run_start",
    "shutdown": "steer:run_shutdown",
    "thread-dump": "diagnose:run_thread_dump",
    "call": "diagnose:run_call",
}
_NAME_HELP: Final = "a worker (worker.2), or a service for all of its workers"
_EPILOG: Final = (
    "exit codes: 0 done, 1 the call failed, 2 usage, 3 no supervisor there, 4 timed "
    "out; serve: 10 the target is bad, 11 somebody serves at the socket, 12 the socket "
    "cannot be made, 13 a worker ended too often, 14 this system cannot supervise"
)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    _open_missing_streams()
    arguments = make_parser().parse_args(words)
    module, _, function = _VERBS[arguments.verb].partition(":")
    run: Callable[[argparse.Namespace], None] = getattr(
        importlib.import_module(f"trio_supervisor.cli.{module}"), function
    )
    try:
        run(arguments)
        sys.stdout.flush()
    except SupervisorError as exc:
        print(f"trio_supervisor: {exc}", file=sys.stderr)
        return exc.exit_code
    except BrokenPipeError:
        # Whoever reads our output has enough. Python would complain at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return 0


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
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

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
        "--log-format", choices=("text", "json"), default="text", help="of the log"
    )

    status = _add_verb(verbs, "status", "show supervisor, workers and monitors", 10)
    status.add_argument(
        "--wait-ready", action="store_true", help="first wait until all are ready"
    )
    _add_verb(verbs, "workers", "show the workers", 10)
    _add_verb(verbs, "ping", "see whether the supervisor answers", 10)

    restart = _add_verb(verbs, "restart", "replace workers gracefully; wait", 120)
    restart.add_argument("names", nargs="*", metavar="NAME", help=_NAME_HELP)
    for verb, text in (
        ("stop", "end workers, and leave them ended; wait"),
        ("start", "start workers that do not run; wait until they are ready"),
    ):
        added = _add_verb(verbs, verb, text, 120)
        added.add_argument("names", nargs="+", metavar="NAME", help=_NAME_HELP)
    _add_verb(verbs, "shutdown", "stop everything, the controller too", 10)

    dump = _add_verb(verbs, "thread-dump", "show the stacks of all threads", 10)
    dump.add_argument("name", metavar="NAME", help=_NAME_HELP)
    call = _add_verb(verbs, "call", "run any operation in a worker", 60)
    call.add_argument("name", metavar="NAME", help=_NAME_HELP)
    call.add_argument("operation", metavar="OPERATION", help="as thread_dump")
    call.add_argument("fields", nargs="*", metavar="key=value", help="its arguments")
    return parser


def _add_verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    timeout: float,
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text)
    _add_socket(parser, "default: $TRIO_SUPERVISOR_SOCKET, or supervisor.ipc here")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=timeout,
        metavar="S",
        help=f"give up after so many seconds; default: {timeout:g}",
    )
    return parser


def _add_socket(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--socket", metavar="PATH", help=text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds, more than 0, not {text!r}")
    return value
