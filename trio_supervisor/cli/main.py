"""Run one verb, and turn its errors into a message and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from trio_supervisor.cli.encoding import guarded_streams, open_missing_streams
from trio_supervisor.cli.parsing import parse_words
from trio_supervisor.cli.verbs.verb import PROGRAM, Verb
from trio_supervisor.errors import (
    CallFailedError,
    PlatformError,
    RemoteProtocolError,
    SupervisorError,
)
from trio_supervisor.process.shortage import shortage_of, text_of
from trio_supervisor.process.spawn.process_exit import exit_code, exit_process


def main(words: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code.

    Args:
        words: The command line without the program's name; None: that of this process.
    """
    open_missing_streams()
    with guarded_streams():
        return _run(sys.argv[1:] if words is None else words)


def run_and_exit() -> NoReturn:
    """Run one command, and end this process with its exit code.

    After `serve`, the interpreter teardown that `exit_process` skips would take 40 ms.
    """
    try:
        code = main()
    except SystemExit as exc:
        code = exit_code(exc)
    exit_process(code)


def _run(words: Sequence[str]) -> int:
    verb, arguments = parse_words(words)
    try:
        handler = _load(verb)
        with _malformed_as_protocol_error(verb):
            handler(arguments)
            sys.stdout.flush()
    except SupervisorError as exc:
        print(f"{PROGRAM}: {_message(exc)}{_hint(exc)}", file=sys.stderr)
        return exc.exit_code
    except BrokenPipeError:
        # The reader, such as `head`, has exited. Python would complain at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as exc:
        if not (problem := _shortage(exc)):
            raise
        print(f"{PROGRAM}: {verb.name}: {problem}", file=sys.stderr)
        return PlatformError.exit_code if verb.name == "serve" else 1
    return 0


def _load(verb: Verb) -> Callable[[Namespace], None]:
    """Import the module of the verb's handler, and return the handler."""
    module, _, function = verb.handler.partition(":")
    handler: Callable[[Namespace], None] = getattr(
        importlib.import_module(f"trio_supervisor.cli.{module}"), function
    )
    return handler


def _shortage(exc: Exception) -> str:
    """Return the resource limit of this process or the system that *exc* hit."""
    try:
        short = shortage_of(exc)
        return "" if short is None else text_of(short)
    except MemoryError:
        return "cannot allocate memory"


def _message(exc: SupervisorError) -> str:
    """Return the message of *exc*; lines after the first of a peer's are indented.

    Otherwise a peer could print a line that looks like one of ours.
    """
    text = str(exc)
    return text.replace("\n", "\n  ") if isinstance(exc, CallFailedError) else text


def _hint(exc: SupervisorError) -> str:
    """Return a line that says how to learn more about *exc*, for people only."""
    name = exc.wire_name  # may be a peer's
    if not (sys.stderr.isatty() and name.isascii() and name.isidentifier()):
        return ""
    return f"\n`{PROGRAM} explain {name}` says more."


@contextmanager
def _malformed_as_protocol_error(verb: Verb) -> Iterator[None]:
    """Report an answer or a file of the wrong shape as a `RemoteProtocolError`.

    Handlers use answers as plain JSON: structuring each into a type takes longer than
    the whole command.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as exc:
        if verb.name == "serve":
            raise
        what = f"{type(exc).__name__}: {exc}"
        raise RemoteProtocolError(
            f"malformed answer or file ({what:.200}); is it from this version of "
            f"trio_supervisor?"
        ) from exc
