"""Run the diagnostic operations of workers, or any operation by its name."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any, Final

from trio_supervisor.cli.connection import (
    Deadline,
    SupervisorConnection,
    UsageError,
    socket_path,
)
from trio_supervisor.cli.output import Progress, print_json, print_line
from trio_supervisor.cli.verbs.verb import AFTER_OBSERVING
from trio_supervisor.errors import NoSuchWorkerError
from trio_supervisor.policy.addressing import Address, find_all, find_one
from trio_supervisor.wire.json_tree import Object

# Part of the timeout that the supervisor waits for the worker: it must time out first,
# because its message says more than "no answer".
_WORKER_SHARE: Final = 0.75

_SOURCES: Final = {
    "memory": "read from its memory",
    "faulthandler": "written by faulthandler",
    "threads": "reported by the kernel",
    "ended": "recorded when it exited",
}
"""Where a report comes from if the worker did not answer, by its field ``way``."""


def run_dump(arguments: Namespace) -> None:
    """Run an operation that answers immediately, and print its report."""
    fields: Object = {}
    if getattr(arguments, "locals", False):
        fields["locals"] = True
    _print(arguments, _ask(arguments, arguments.verb.replace("-", "_"), fields))


def run_period(arguments: Namespace) -> None:
    """Run an operation that observes the worker for a while, and print its report."""
    fields: Object = {"duration": arguments.duration}
    if getattr(arguments, "engine", None):
        fields["engine"] = arguments.engine
    if arguments.verb == "memory-sample":
        fields["format"] = "text"
    _print(arguments, _ask(arguments, arguments.verb.replace("-", "_"), fields))


def run_doctor(arguments: Namespace) -> None:
    """Diagnose workers.

    Exit with 1 if a problem was found, else with 2 if not all could be examined.
    """
    answers = _ask(arguments, "doctor", {"duration": arguments.duration})
    _print(arguments, answers)
    sys.stdout.flush()
    if any(answer.get("findings") for answer in answers.values()):
        sys.exit(1)
    if any(answer.get("left_out") for answer in answers.values()):
        sys.exit(2)


def run_memory_dump(arguments: Namespace) -> None:
    """Write the heap of one worker to a file."""
    fields: Object = {"values": True} if arguments.values else {}
    if arguments.path is not None:
        fields["path"] = os.path.abspath(arguments.path)
    _print(arguments, _ask(arguments, "memory_dump", fields, needs_single=True))


def run_profile(arguments: Namespace) -> None:
    """Take a profile of one worker, and print it or write it to a file."""
    fields = {
        "duration": arguments.duration,
        "interval": arguments.interval,
        "format": arguments.format,
    }
    answers = _ask(arguments, "profile", fields, needs_single=True)
    (report,) = answers.values()
    if arguments.output is not None:
        _write_new(arguments.output, report["data"])
    if arguments.json:
        print_json(report)
    elif arguments.output is None:
        print(report["data"])
    else:
        _print_profile(report, arguments.output)


def run_call(arguments: Namespace) -> None:
    """Run any operation, and print its answer as JSON; or list the operations."""
    if arguments.list:
        _print_operations(arguments)
        return
    if arguments.operation is None:
        raise UsageError("name an operation, or use --list")
    fields = parse_fields(arguments.fields)
    answers = _ask(arguments, arguments.operation.replace("-", "_"), fields)
    _print_json(answers)


def parse_fields(words: Sequence[str]) -> Object:
    """Return the arguments in ``key=value`` words; a value that is no JSON is a string.

    Raises:
        UsageError: a word has no ``=``, or a key is given twice.
    """
    fields: Object = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UsageError(f"expected key=value, got {word!r}")
        if key in fields:
            raise UsageError(f"{key!r} is given twice")
        try:
            fields[key] = json.loads(text)
        except (ValueError, RecursionError):
            fields[key] = text
    return fields


def _print_json(answers: dict[str, Object]) -> None:
    """Print a single answer as it is, several by the names of their workers."""
    print_json(answers if len(answers) > 1 else next(iter(answers.values())))


def _print(arguments: Namespace, answers: dict[str, Object]) -> None:
    if arguments.json:
        _print_json(answers)
        return
    for name, answer in answers.items():
        if len(answers) > 1:
            print_line(f"=== {name}")
        source = _SOURCES.get(str(answer.get("way")))
        if source is not None and "findings" not in answer:
            print_line(f"(no answer from the worker; {source})")
        if "data" not in answer and "path" in answer:  # the answer of a Ruby worker
            print_line(f"written to {answer['path']}")
        else:
            print(str(answer.get("data") or f"{name}: done").rstrip())


def _print_profile(report: Object, path: str) -> None:
    print_line(
        f"{report['samples']} samples in {report['duration']:.1f} s, "
        f"overhead {report['overhead']:.1%}; written to {path}"
    )
    for line in report["hottest"][:10]:
        where = f"{line['file']}:{line['line']}"
        print_line(f"  {line['share']:6.1%}  {where} in {line['function']}")


def _print_operations(arguments: Namespace) -> None:
    answers = _ask(arguments, "operations", {})
    if arguments.json:
        _print_json(answers)
        return
    answer = next(iter(answers.values()))
    print_line("built-in operations: " + ", ".join(answer["operations"]))
    for handler in answer["handlers"]:
        parameters = (f"{n}: {type_}" for n, type_ in handler["parameters"].items())
        print()
        print_line(f"{handler['name']}({', '.join(parameters)})")
        if handler["description"]:
            print_line(f"    {handler['description'].splitlines()[0]}")


def _ask(
    arguments: Namespace, do: str, fields: Object, *, needs_single: bool = False
) -> dict[str, Object]:
    """Run *do* in each worker that the name on the command line means.

    Args:
        needs_single: Whether the name must mean a single worker.

    Returns:
        The answer of each worker, by its name.
    """
    timeout = arguments.timeout
    if timeout is None:
        timeout = getattr(arguments, "duration", 0.0) + AFTER_OBSERVING
    deadline = Deadline(timeout)
    with SupervisorConnection(socket_path(arguments.socket), deadline) as connection:
        targets = _targets(connection, arguments.name)
        if needs_single and len(targets) > 1:
            known = ", ".join(targets)
            raise UsageError(
                f"{arguments.name} has several workers; choose one: {known}"
            )
        answers = {}
        for name, target in targets.items():
            left = max(0.001, deadline.left() * _WORKER_SHARE)
            with Progress(f"{name}: {do}") as progress:
                wanted = {"progress": True} if progress.is_possible else {}
                operation = {"do": do, **fields, **wanted}
                forward = {**target, "operation": operation, "timeout": left}
                answers[name] = connection.ask(
                    "forward", forward, _on_progress_of(progress)
                )
        return answers


def _on_progress_of(progress: Progress) -> Callable[[Object], None]:
    def on_progress(fields: Object) -> None:
        done: Any = fields.get("progress")
        if isinstance(done, int | float):
            progress.show(done)

    return on_progress


def _targets(connection: SupervisorConnection, word: str) -> dict[str, Object]:
    """Return the address in a ``forward`` for each worker that *word* means, by name.

    Args:
        word: A worker of the controller, a service, or any worker by its name,
            connection id or pid.
    """
    workers = connection.ask("workers")["workers"]
    managed = [worker for worker in workers if worker["is_managed"]]
    if any(worker["name"] == word for worker in managed):
        return {word: {"name": word}}
    if found := [worker["name"] for worker in managed if worker["service"] == word]:
        return {name: {"name": name} for name in found}
    known = [
        Address(w["name"], w["process_id"], w["connection_id"], w["is_managed"])
        for w in workers
    ]
    if not find_all(word, known):
        names = ", ".join(worker["name"] for worker in workers[:20]) or "none"
        problem = f"no worker or service has the name {word!r}; workers: {names}"
        raise NoSuchWorkerError(problem)
    one = find_one(word, known)
    if one.is_managed:
        return {one.name: {"name": one.name}}
    return {one.name: {"connection_id": one.connection_id}}


def _write_new(path: str, text: str) -> None:
    """Write *text* to a new file at *path* that only this user can read.

    Raises:
        UsageError: it cannot be created, for instance because it exists.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as exc:
        raise UsageError(f"cannot write {path}: {exc.strerror}") from None
