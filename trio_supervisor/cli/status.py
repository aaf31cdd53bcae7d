"""Show the state of supervisor and workers, and check their health."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple, TypeAlias

from trio_supervisor.cli.connection import (
    Deadline,
    SupervisorConnection,
    connect_patiently,
    socket_path,
)
from trio_supervisor.cli.output import (
    clear_terminal,
    format_duration,
    print_json,
    print_line,
    print_table,
)
from trio_supervisor.errors import (
    ConnectionLostError,
    DeadlineExceededError,
    NoSuchWorkerError,
    NoSupervisorError,
    SupervisorError,
)
from trio_supervisor.link.foreign_server import workers
from trio_supervisor.policy.addressing import is_pattern
from trio_supervisor.policy.crash_text import describe_crashes, parenthesized
from trio_supervisor.policy.health_text import describe_health
from trio_supervisor.process.output.escaping import escape_line
from trio_supervisor.wire.json_tree import Object

WorkerFields: TypeAlias = dict[str, Any]
"""The fields of a `WorkerStatus`, as the supervisor sends them."""

# A supervisor that responds at all does so much sooner [s].
_LATE_WITHIN: Final = 2.0
# Workers that a message lists: of a thousand, ten show what is wrong with the others.
_MOST_LATE: Final = 10


def run_ping(arguments: Namespace) -> None:
    """Check that the supervisor responds."""
    path = socket_path(arguments.socket)
    with SupervisorConnection(path, Deadline(arguments.timeout)) as connection:
        connection.ask("ping")
        is_foreign = connection.is_foreign
    if arguments.json:
        print_json({"socket": path, "answered": True})
    elif is_foreign:
        print_line(f"a server at {path} responds, but it is not trio_supervisor")
    else:
        print_line(f"the supervisor at {path} responds")


def run_probe(arguments: Namespace) -> None:
    """Check the health of the application; exit 1 if it is not healthy."""
    path = socket_path(arguments.socket)
    with SupervisorConnection(path, Deadline(arguments.timeout)) as connection:
        report = connection.ask("health", {"kind": arguments.kind})
    if arguments.json:
        print_json(report)
    else:
        result = describe_health(report["is_ok"], report["details"])
        print_line(f"{arguments.kind}: {result}")
    if not report["is_ok"]:
        sys.stdout.flush()
        sys.exit(1)


def run_metrics(arguments: Namespace) -> None:
    """Show metrics."""
    path = socket_path(arguments.socket)
    fields = {"per_worker": arguments.per_worker}
    with SupervisorConnection(path, Deadline(arguments.timeout)) as connection:
        report = connection.ask("metrics", fields)
    if arguments.json:
        print_json(report)
    else:
        for line in report["data"].splitlines():
            print_line(line)


def run_status(arguments: Namespace) -> None:
    """Show supervisor, controller, workers and monitors, once or again and again."""
    if not arguments.watch:
        _show_status(arguments)
        return
    while True:
        began = time.monotonic()
        clear_terminal()
        if not arguments.json:
            print(f"{time.strftime('%H:%M:%S')}, every {arguments.interval:g} s")
        try:
            _show_status(arguments)
        except (NoSupervisorError, ConnectionLostError) as exc:
            print_line(str(exc))  # it may come back
        sys.stdout.flush()
        time.sleep(max(0.0, arguments.interval - (time.monotonic() - began)))


def _show_status(arguments: Namespace) -> None:
    deadline = Deadline(arguments.timeout)
    path = socket_path(arguments.socket)
    if arguments.wait_ready:
        _wait_ready(path, deadline)
    monitors: Object = {}
    with SupervisorConnection(path, deadline) as connection:
        report = connection.call("status", on_progress=monitors.update)
    if "workers" in report:
        report = {**report, "workers": _chosen(report["workers"], arguments.names)}
    if arguments.json:
        print_json({**report, "monitors": monitors})
        return
    if "workers" not in report:
        found = workers(report.get("connections", []))
        _print_connections(_chosen(found, arguments.names))
        return
    print_line(headline(report))
    if silence := silence_of(report["controller"], "the status below"):
        print(silence)
    for line in canary_lines(report["workers"], time.time()):
        print_line(line)
    _print_workers(with_usage(report["workers"], monitors))
    for name, status in monitors.items():
        if "problem" in status:
            print_line(f"monitor {name}: {status['problem']}")
        if "blocked" in status:
            seconds = status["blocked"]
            print_line(f"monitor {name}: blocked the event loop for {seconds:.2f} s")


def run_workers(arguments: Namespace) -> None:
    """Show the workers alone."""
    path = socket_path(arguments.socket)
    with SupervisorConnection(path, Deadline(arguments.timeout)) as connection:
        report = connection.ask("workers")
        is_foreign = connection.is_foreign
    report = {**report, "workers": _chosen(report["workers"], arguments.names)}
    if arguments.json:
        print_json(report["workers"])
    elif is_foreign:
        _print_connections(report["workers"])
    else:
        _print_workers(report["workers"])


def _chosen(found: list[WorkerFields], names: list[str]) -> list[WorkerFields]:
    """Return the workers that *names* mean; all if there are none.

    Raises:
        NoSuchWorkerError: a name means no worker.
    """
    chosen: list[WorkerFields] = [] if names else found
    for name in names:
        these = [worker for worker in found if _is_meant(worker, name)]
        if not these:
            # Imported only for the message: it takes longer than the whole call.
            from trio_supervisor.application.nearest import did_you_mean

            known = dict.fromkeys(worker.get("service") for worker in found)
            hint = did_you_mean(name, [*known, *(worker["name"] for worker in found)])
            raise NoSuchWorkerError(f"no worker or service is named {name!r}{hint}")
        chosen += [worker for worker in these if worker not in chosen]
    return chosen


def _is_meant(worker: WorkerFields, name: str) -> bool:
    if is_pattern(name):
        return fnmatchcase(worker["name"], name)
    process_id = str(worker["process_id"])
    words = (worker["name"], worker.get("service"), worker["connection_id"])
    return name in (*words, process_id, f"pid-{process_id}")


def _print_connections(found: list[WorkerFields]) -> None:
    """Show the workers of a server that is not ours, such as Ruby's."""
    rows = [
        [worker["name"], str(worker["process_id"]), str(worker["connection_id"])]
        for worker in found
    ]
    print_table(["NAME", "PID", "CONNECTION"], rows)


def _wait_ready(path: str, deadline: Deadline) -> None:
    """Wait until all workers are ready, also if the supervisor is restarted."""
    while True:
        with connect_patiently(path, deadline) as connection:
            try:
                connection.ask("workers", {"wait_ready": True})
            except ConnectionLostError:
                continue
            except DeadlineExceededError:
                late = _late(path)
                raise DeadlineExceededError(
                    f"not all workers were ready within {deadline.timeout:g} s "
                    f"(--timeout){late}"
                ) from None
            return


def _late(path: str) -> str:
    """Return the workers that are not ready, and why, as the end of a message."""
    try:
        with SupervisorConnection(path, Deadline(_LATE_WITHIN)) as connection:
            workers = in_order(connection.call("workers")["workers"])
    except SupervisorError:  # the message about the timeout is shown anyway
        return ""
    late = [
        f"{worker['name']} is {_state(worker)} {_remark(worker)}".strip()
        for worker in workers
        if worker["state"] not in ("ready", "stopped")
    ]
    more = f" and {len(late) - _MOST_LATE} more" if len(late) > _MOST_LATE else ""
    return f": {', '.join(late[:_MOST_LATE])}{more}" if late else ""


def _state(worker: WorkerFields) -> str:
    """Return the state of the worker as a part of a sentence."""
    return "in backoff" if worker["state"] == "backoff" else str(worker["state"])


def in_order(workers: list[WorkerFields]) -> list[WorkerFields]:
    """Sort by service, then by index: after a scale-up new workers come last."""
    services = list(dict.fromkeys(worker["service"] for worker in workers))

    def place(worker: WorkerFields) -> tuple[int, int, int]:
        index = worker["name"].rpartition(".")[2]
        number = int(index) if index.isdecimal() else 0
        generation = worker.get("generation", 1)
        return services.index(worker["service"]), number, generation

    return sorted(workers, key=place)


def describe_worker(worker: WorkerFields) -> str:
    """Return how the worker crashed, how often, and when it is retried."""
    return describe_crashes(
        crashes=worker.get("crashes", 0),
        last_exit=worker["last_exit"],
        reason=worker.get("reason", ""),
        problem=escape_line(worker.get("problem", "")),
        last_line=escape_line(worker.get("last_line", "")),
        next_try_in=worker.get("next_try_in"),
    )


def _remark(worker: WorkerFields) -> str:
    if not worker["is_managed"]:
        return "(not started by this controller)"
    if (schedule := worker.get("schedule")) and not worker["process_id"]:
        return parenthesized(_schedule_text(schedule))
    if worker.get("waiting_for"):
        return parenthesized(f"waiting for {worker['waiting_for']}")
    if worker["state"] == "backoff" or worker.get("crashes", 0) > 1:
        return parenthesized(describe_worker(worker))
    if worker["last_exit"] and worker["state"] != "ready":
        return parenthesized(worker["last_exit"])
    if worker.get("canary"):
        return "(canary)"
    if worker.get("reason"):
        return parenthesized(worker["reason"])
    return ""


def _schedule_text(schedule: Object) -> str:
    """Return when a worker with a schedule runs next, and how its last run ended."""
    after = schedule.get("next_run_at")
    parts = ["paused"]
    if after is not None:
        parts = [f"next run in {format_duration(max(0.0, after - time.time()))}"]
    if result := schedule.get("last_result"):
        took = format_duration(schedule.get("last_run_seconds"))
        parts.append(f"the last ended with {result} after {took}")
    return "; ".join(parts)


def _print_workers(found: list[WorkerFields]) -> None:
    workers = in_order(found)
    columns = [column for column in _COLUMNS if column.is_shown(workers)]
    rows = [[column.text(worker) for column in columns] for worker in workers]
    print_table([column.title for column in columns], rows)


def with_usage(workers: list[WorkerFields], monitors: Object) -> list[WorkerFields]:
    """Add what a `ProcessMonitor` knows of each worker."""
    found = monitors.get("process_monitor", {}).get("processes", {})
    return [
        {**worker, "usage": found.get(str(worker["process_id"]))} for worker in workers
    ]


def _connected(worker: WorkerFields) -> str:
    if not worker.get("connects", True):
        return "-"
    return "yes" if worker["connected"] else "no"


def _have_agents(workers: list[WorkerFields]) -> bool:
    """Whether any worker is one that connects: commands do not."""
    return any(worker.get("connects", True) for worker in workers)


def _has_usage(workers: list[WorkerFields]) -> bool:
    return any(worker.get("usage") for worker in workers)


def _cpu(worker: WorkerFields) -> str:
    share = (worker.get("usage") or {}).get("cpu_share")
    return "-" if share is None else f"{share:.1%}"


def _memory(worker: WorkerFields) -> str:
    usage = worker.get("usage") or {}
    size = usage.get("pss") or usage.get("rss")
    return "-" if size is None else f"{size / 2**20:.1f} MiB"


def _was_reloaded(workers: list[WorkerFields]) -> bool:
    """Whether any worker is of a later generation; else all would show 1."""
    return any(worker.get("generation", 1) > 1 for worker in workers)


def _have_equal_names(workers: list[WorkerFields]) -> bool:
    """Whether only their connections distinguish some workers from each other."""
    names = [worker["name"] for worker in workers if not worker["is_managed"]]
    return len(set(names)) < len(names)


def headline(report: Object) -> str:
    """Return which supervisor and controller there are, in one line."""
    supervisor, controller = report["supervisor"], report["controller"]
    return (
        f"supervisor pid {supervisor['process_id']}, incarnation "
        f"{supervisor['incarnation']}, up {format_duration(supervisor['uptime'])}; "
        f"controller pid {controller['process_id']}"
    )


def canary_lines(workers: list[WorkerFields], now: float) -> Iterator[str]:
    """Yield which workers a reload compares with the old ones, and for how long.

    Args:
        now: [s since the epoch]
    """
    found: dict[tuple[int, float, float], list[str]] = {}
    for worker in in_order(workers):
        if canary := worker.get("canary"):
            key = worker["generation"], canary["since"], canary["until"]
            found.setdefault(key, []).append(worker["name"])
    for (generation, since, until), names in found.items():
        elapsed = format_duration(max(0.0, now - since))
        left = format_duration(max(0.0, until - now))
        yield (
            f"canary of generation {generation}: {', '.join(names)}; compared with the "
            f"previous generation for {elapsed}, {left} left"
        )


def silence_of(controller: Object, what: str) -> str:
    """Return that the controller does not respond, and how old *what* is; or empty."""
    if (age := controller.get("silent_for")) is None:
        return ""
    how = "is stopped (SIGSTOP)" if controller.get("state") else "does not respond"
    return f"controller {how}; {what} is {format_duration(age)} old"


def status_text(worker: WorkerFields) -> str:
    """Return the status that the worker reported, or why it does not run."""
    # The STATUS= of a process that has exited is out of date.
    return (worker["process_id"] and worker["status"]) or _remark(worker)


class _Column(NamedTuple):
    """One column of the table of workers."""

    title: str
    text: Callable[[WorkerFields], str]
    is_shown: Callable[[list[WorkerFields]], bool] = lambda _: True


_COLUMNS: Final = (
    _Column("NAME", lambda worker: str(worker["name"])),
    _Column("GEN", lambda worker: str(worker.get("generation", 1)), _was_reloaded),
    _Column("PID", lambda worker: str(worker["process_id"] or "-")),
    _Column("STATE", lambda worker: str(worker["state"])),
    _Column("CONNECTED", _connected, _have_agents),
    _Column("UPTIME", lambda worker: format_duration(worker["uptime"])),
    _Column("CPU", _cpu, _has_usage),
    _Column("MEMORY", _memory, _has_usage),
    _Column("RESTARTS", lambda worker: str(worker["restarts"])),
    _Column("STATUS", status_text),
    _Column(
        "CONNECTION",
        lambda worker: str(worker["connection_id"] or "-"),
        _have_equal_names,
    ),
)
"""The columns of the table in their order; a new one needs only a line here."""
