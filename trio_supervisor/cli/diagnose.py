"""``thread-dump`` and ``call``: ask workers themselves."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence

from trio_supervisor.cli.connection import Connection, Deadline, socket_path
from trio_supervisor.cli.output import print_json
from trio_supervisor.errors import NoSuchWorkerError, SupervisorError
from trio_supervisor.wire.json_tree import Object


class UsageError(SupervisorError):
    """The words of the command do not fit."""

    exit_code = 2


def run_thread_dump(arguments: Namespace) -> None:
    """Print the stacks of all threads of one worker, or of all of a service."""
    answers = _ask(arguments, "thread_dump", {})
    if arguments.json:
        print_json(answers if len(answers) > 1 else next(iter(answers.values())))
        return
    for name, answer in answers.items():
        if len(answers) > 1:
            print(f"=== {name}")
        print(answer.get("data", ""))


def run_call(arguments: Namespace) -> None:
    """Run any operation, and print what comes back as JSON."""
    fields = parse_fields(arguments.fields)
    answers = _ask(arguments, arguments.operation.replace("-", "_"), fields)
    print_json(answers if len(answers) > 1 else next(iter(answers.values())))


def parse_fields(words: Sequence[str]) -> Object:
    """Return the arguments in ``key=value`` words; a JSON value is taken as such.

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


def _ask(arguments: Namespace, do: str, fields: Object) -> dict[str, Object]:
    """Return the answers of all workers that the name means, by name."""
    deadline = Deadline(arguments.timeout)
    with Connection(socket_path(arguments.socket), deadline) as connection:
        names = _names(connection, arguments.name)
        answers = {}
        for name in names:
            # A little less than we wait ourselves, for its answer says more.
            timeout = max(0.001, deadline.left() * 0.95)
            operation = {"do": do, **fields}
            forward = {"name": name, "operation": operation, "timeout": timeout}
            answers[name] = connection.call("forward", forward)
        return answers


def _names(connection: Connection, name: str) -> list[str]:
    """Return the workers that *name* means; itself, where it is no service's."""
    workers = connection.call("workers")["workers"]
    if any(worker["name"] == name for worker in workers):
        return [name]
    found = [worker["name"] for worker in workers if worker["service"] == name]
    if not found:
        known = ", ".join(worker["name"] for worker in workers[:20]) or "none"
        problem = f"no worker or service has the name {name!r}; workers: {known}"
        raise NoSuchWorkerError(problem)
    return found
