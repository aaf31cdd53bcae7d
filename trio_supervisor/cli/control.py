"""Restart, reload, scale, stop, start and shut down."""

from __future__ import annotations

from argparse import Namespace
from typing import Final

from trio_supervisor.cli.connection import (
    Deadline,
    SupervisorConnection,
    UsageError,
    socket_path,
)
from trio_supervisor.cli.output import print_json, print_line
from trio_supervisor.cli.shutdown_wait import watch_controller
from trio_supervisor.policy.addressing import Address, find_all, process_id_of
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.limits import CANARY_SECONDS

# As a pattern, of all workers.
_EVERYTHING: Final = ["*"]


def run_restart(arguments: Namespace) -> None:
    """Restart workers, and wait until the new processes are ready."""
    names = _names(arguments)
    fields: Object = {} if names == _EVERYTHING else {"names": names}
    if arguments.rolling:
        fields |= {"rolling": True, "max_unavailable": arguments.max_unavailable}
    _call_and_report(arguments, "restart", fields, "restarted")


def run_reload(arguments: Namespace) -> None:
    """Replace the generation, and wait until the new one has taken over; or abort."""
    if arguments.abort:
        others = (arguments.dry_run, arguments.changed_only, arguments.canary)
        if any(others) or arguments.canary_for is not None:
            raise UsageError(
                "--abort cannot be combined with --dry-run, --changed-only, --canary "
                "or --for"
            )
        _call_and_report(arguments, "abort_reload", {}, "the reload was aborted")
        return
    fields: Object = {
        "changed_only": arguments.changed_only,
        "dry_run": arguments.dry_run,
    }
    seconds = _canary_seconds(arguments)
    if seconds:
        fields |= {"canary": arguments.canary, "canary_for": seconds}
    report = _call(arguments, "reload", fields, more_time=seconds)
    if arguments.json:
        print_json(report)
        return
    for line in report["lines"]:
        print_line(line)
    if canaries := report.get("canaries"):
        print_line(f"canary passed after {seconds:g} s: {', '.join(canaries)}")
    if report["generation"] and not arguments.dry_run:
        print_line(f"generation {report['generation']} took over")
    for name, trouble in report.get("not_ready", {}).items():
        print_line(f"{name} is not ready (nor was it before the reload): {trouble}")


def _canary_seconds(arguments: Namespace) -> float:
    """Return how long a canary is to be observed [s]; 0: there is none."""
    seconds: float | None = arguments.canary_for
    if arguments.canary is None:
        if seconds is not None:
            raise UsageError("--for has no effect without --canary")
        return 0.0
    if arguments.dry_run:
        raise UsageError("--canary cannot be combined with --dry-run")
    return CANARY_SECONDS if seconds is None else seconds


def run_scale(arguments: Namespace) -> None:
    """Change the number of workers, and wait until the new ones are up."""
    counts: dict[str, int] = {}
    for name, count in arguments.counts:
        if name in counts:
            raise UsageError(f"service {name} is named twice")
        counts[name] = count
    not_ready = _call(arguments, "scale", {"counts": counts}).get("not_ready", {})
    if arguments.json:
        print_json({"done": "scale", "counts": counts, "not_ready": not_ready})
        return
    for name, count in counts.items():
        print_line(f"{name} has {count} worker{'' if count == 1 else 's'}")
    for name, state in not_ready.items():
        print_line(f"{name} is not ready: {state}")


def run_stop(arguments: Namespace) -> None:
    """Stop workers and their dependents, and wait until they have exited."""
    names = _names(arguments)
    stopped = _call(arguments, "stop", {"names": names}).get("stopped", [])
    if arguments.json:
        print_json({"done": "stop", "names": names, "stopped": stopped})
        return
    if names == _EVERYTHING:
        print_line("everything stopped")
        return
    print_line(f"{', '.join(names)} stopped")
    others = [n for n in stopped if n not in names and n.rsplit(".", 1)[0] not in names]
    if others:
        print_line(f"also stopped (dependents): {', '.join(others)}")


def run_start(arguments: Namespace) -> None:
    """Start workers, and wait until they are up."""
    _call_and_report(arguments, "start", {"names": _names(arguments)}, "started")


def run_shutdown(arguments: Namespace) -> None:
    """Stop everything, and wait until the controller has exited."""
    if arguments.no_wait:
        _call_and_report(arguments, "shutdown", {}, "shutting down")
        return
    path, deadline = socket_path(arguments.socket), Deadline(arguments.timeout)
    with SupervisorConnection(path, deadline) as connection:
        if connection.is_foreign:
            connection.ask("shutdown")
            _report(arguments, "shutdown", [], "shutting down")
            return
        with watch_controller(connection, path) as controller:
            controller.shut_down(connection, deadline)
    _report(arguments, "shutdown", [], "everything stopped")


def _names(arguments: Namespace) -> list[str]:
    """Return the names on the command line, with pids and connection ids resolved."""
    words = list(arguments.names)
    if arguments.all or words == ["all"]:
        if words not in ([], ["all"]):
            raise UsageError("--all cannot be combined with names")
        return _EVERYTHING
    if not words:
        raise UsageError("name workers or services, or give --all")
    if not any(_is_number_or_id(word) for word in words):
        return words
    with SupervisorConnection(
        socket_path(arguments.socket), Deadline(arguments.timeout)
    ) as connection:
        workers = connection.ask("workers")["workers"]
    known = [
        Address(w["name"], w["process_id"], w["connection_id"])
        for w in workers
        if w["is_managed"]
    ]
    named = {one.name for one in known} | {w["service"] for w in workers}
    return [_name(word, known) if word not in named else word for word in words]


def _name(word: str, known: list[Address]) -> str:
    found = find_all(word, known)
    return found[0].name if found else word


def _is_number_or_id(word: str) -> bool:
    """Return whether *word* has the form of a pid, or of a connection id (a UUID)."""
    is_id = len(word) == 36 and word.count("-") == 4
    return is_id or process_id_of(word) is not None


def _call_and_report(arguments: Namespace, do: str, fields: Object, done: str) -> None:
    _call(arguments, do, fields)
    has_names = do not in ("shutdown", "abort_reload")
    names = fields.get("names", _EVERYTHING if has_names else [])
    names = ["everything"] if names == _EVERYTHING else names
    _report(arguments, do, names, done)


def _report(arguments: Namespace, do: str, names: list[str], done: str) -> None:
    """Print that the call *do* succeeded: *names*, and what was *done* to them."""
    if arguments.json:
        print_json({"done": do, "names": names})
    else:
        print_line(" ".join([", ".join(names), done]).strip())


def _call(
    arguments: Namespace, do: str, fields: Object, more_time: float = 0.0
) -> Object:
    """Call the supervisor.

    Args:
        more_time: Time that the call takes in any case, in addition to --timeout [s].
    """
    path, deadline = socket_path(arguments.socket), arguments.timeout + more_time
    with SupervisorConnection(path, Deadline(deadline)) as connection:
        return connection.ask(do, fields)
