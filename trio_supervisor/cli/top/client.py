"""Read the state of the application, and run verbs at it."""

from __future__ import annotations

from typing import Protocol

from trio_supervisor.cli.connection import Deadline, SupervisorConnection
from trio_supervisor.cli.status import WorkerFields, headline, silence_of, with_usage
from trio_supervisor.cli.top.figures import TopFigures, read_figures
from trio_supervisor.cli.top.rows import TopSnapshot
from trio_supervisor.cli.top.usage import LocalUsage
from trio_supervisor.cli.top.verb_run import VerbRun
from trio_supervisor.errors import CallFailedError, RemoteProtocolError
from trio_supervisor.link.foreign_server import workers
from trio_supervisor.process.output.escaping import escape_line
from trio_supervisor.wire.json_tree import Object


class RunningVerb(Protocol):
    """A verb that runs."""

    def wait(self) -> tuple[int, str]:
        """Return the exit code and the output."""

    def kill(self) -> None:
        """Kill the verb, if it still runs."""


class TopClient(Protocol):
    """What the view needs of a running application; calls block."""

    def read(self) -> TopSnapshot:
        """Return the state of the application.

        Raises:
            SupervisorError: it could not be read.
        """

    def start(self, words: tuple[str, ...]) -> RunningVerb:
        """Start a verb."""


class SocketClient:
    """The application whose supervisor listens at *path*."""

    def __init__(self, path: str, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._usage = LocalUsage()

    def start(self, words: tuple[str, ...]) -> VerbRun:
        """Start a verb."""
        return VerbRun(words, self._path)

    def read(self) -> TopSnapshot:
        """Return the state of the application.

        Raises:
            SupervisorError: it could not be read.
        """
        try:
            return self._read()
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as exc:
            what = f"{type(exc).__name__}: {exc}"
            raise RemoteProtocolError(f"malformed answer ({what:.200})") from exc

    def _read(self) -> TopSnapshot:
        monitors: Object = {}
        deadline = Deadline(self._timeout)
        with SupervisorConnection(self._path, deadline) as connection:
            listener = connection.listener_process_id
            report = connection.call("status", on_progress=monitors.update)
            if "workers" not in report:
                return _of_foreign_server(report)
            figures = _figures(connection)
        supervisor, controller = report["supervisor"], report["controller"]
        found = with_usage(report["workers"], monitors)
        # In another pid namespace, such as a container's, its pids mean nothing here.
        if listener in (supervisor["process_id"], controller["process_id"]):
            self._add_local_usage(found)
        return TopSnapshot(
            headline=headline(report),
            workers=found,
            lags=figures.lags,
            services=figures.services,
            problems=_problems(controller, monitors),
        )

    def _add_local_usage(self, found: list[WorkerFields]) -> None:
        missing = [w for w in found if w["process_id"] and not w["usage"]]
        usage = self._usage.read(worker["process_id"] for worker in missing)
        for worker in missing:
            worker["usage"] = usage.get(worker["process_id"])


def _figures(connection: SupervisorConnection) -> TopFigures:
    try:
        return read_figures(connection.call("metrics", {"per_worker": True})["data"])
    except CallFailedError:  # without a controller there are none
        return TopFigures({}, [])


def _problems(controller: Object, monitors: Object) -> list[str]:
    silence = silence_of(controller, "the status")
    problems = [silence] if silence else []
    problems += [
        escape_line(f"monitor {name}: {status['problem']}")
        for name, status in monitors.items()
        if "problem" in status
    ]
    return problems


def _of_foreign_server(report: Object) -> TopSnapshot:
    """Return the workers of a server that is not ours, such as Ruby's."""
    found = [
        {
            **worker,
            "name": str(worker["name"]),
            "service": str(worker["name"]),
            "status": "",
            "last_exit": "",
        }
        for worker in workers(report.get("connections", []))
    ]
    return TopSnapshot("this server is not trio_supervisor", found)
