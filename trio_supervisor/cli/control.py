"""``restart``, ``reload``, ``scale``, ``stop``, ``start`` and ``shutdown``."""

from __future__ import annotations

from argparse import Namespace

from trio_supervisor.cli.connection import Connection, Deadline, UsageError, socket_path
from trio_supervisor.cli.output import print_json, print_line
from trio_supervisor.cli.shutdown_wait import watch_controller
from trio_supervisor.policy.addressing import Address, find_all, process_id_of
from trio_supervisor.wire.json_tree import Object


def run_restart(arguments: Namespace) -> None:
    """Replace workers, and wait for the new ones."""
    names = _names(arguments)
    fields: Object = {"names": names} if names else {}
    if arguments.rolling:
        fields |= {"rolling": True, "max_unavailable": arguments.max_unavailable}
    _steer(arguments, "restart", fields, "restarted")


def run_reload(arguments: Namespace) -> None:
    """Have a new generation take over, and wait for it; or give one up."""
    if arguments.abort:
        if arguments.dry_run or arguments.changed_only:
            raise UsageError("--abort goes with nothing else")
        _steer(arguments, "abort_reload", {}, "the reload was aborted")
        return
    fields = {"changed_only": arguments.changed_only, "dry_run": arguments.dry_run}
    report = _call(arguments, "reload", fields)
    if arguments.json:
        print_json(report)
        return
    for line in report["lines"]:
        print_line(line)
    if report["generation"] and not arguments.dry_run:
        print_line(f"generation {report['generation']} took over")
    for name, trouble in report.get("not_ready", {}).items():
        print_line(f"{name} is not ready, as before the reload: {trouble}")


def run_scale(arguments: Namespace) -> None:
    """Change the number of workers, and wait for the new ones."""
    counts = dict(arguments.counts)
    if len(counts) < len(arguments.counts):
        raise UsageError("a service is named twice")
    not_ready = _call(arguments, "scale", {"counts": counts}).get("not_ready", {})
    if arguments.json:
        print_json({"done": "scale", "counts": counts, "not_ready": not_ready})
        return
    for name, count in counts.items():
        print_line(f"{name} has {count} worker{'' if count == 1 else 's'}")
    for name, state in not_ready.items():
        print_line(f"{name} is not ready: {state}")


def run_stop(arguments: Namespace) -> None:
    """End workers, and what depends on them, and wait for that."""
    names = _names(arguments)
    stopped = _call(arguments, "stop", {"names": names}).get("stopped", [])
    if arguments.json:
        print_json({"done": "stop", "names": names, "stopped": stopped})
        return
    print_line(f"{', '.join(names)} stopped")
    others = [n for n in stopped if n not in names and n.rsplit(".", 1)[0] not in names]
    if others:
        print_line(f"with what depends on it: {', '.join(others)}")


def run_start(arguments: Namespace) -> None:
    """Start workers, and wait until they are ready."""
    _steer(arguments, "start", {"names": _names(arguments)}, "started")


def run_shutdown(arguments: Namespace) -> None:
    """Have everything stopped, and wait until the controller has ended."""
    if arguments.no_wait:
        _steer(arguments, "shutdown", {}, "shutting down")
        return
    path, deadline = socket_path(arguments.socket), Deadline(arguments.timeout)
    with Connection(path, deadline) as connection:
        if connection.is_foreign:
            connection.ask("shutdown")
            _print_done(arguments, "shutdown", [], "shutting down")
            return
        with watch_controller(connection, path) as controller:
            controller.shut_down(connection, deadline)
    _print_done(arguments, "shutdown", [], "everything stopped")


def _names(arguments: Namespace) -> list[str]:
    """Return the names that were given, those of workers in place of ids and pids."""
    words = list(arguments.names)
    if not any(process_id_of(word) is not None or _is_id(word) for word in words):
        return words
    with Connection(
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


def _is_id(word: str) -> bool:
    """Say whether *word* looks like a connection id."""
    return len(word) == 36 and word.count("-") == 4


def _steer(arguments: Namespace, do: str, fields: Object, done: str) -> None:
    _call(arguments, do, fields)
    has_names = do not in ("shutdown", "abort_reload")
    names = fields.get("names", ["everything"] if has_names else [])
    _print_done(arguments, do, names, done)


def _print_done(arguments: Namespace, do: str, names: list[str], done: str) -> None:
    if arguments.json:
        print_json({"done": do, "names": names})
    else:
        print_line(" ".join([", ".join(names), done]).strip())


def _call(arguments: Namespace, do: str, fields: Object) -> Object:
    path = socket_path(arguments.socket)
    with Connection(path, Deadline(arguments.timeout)) as connection:
        return connection.ask(do, fields)
