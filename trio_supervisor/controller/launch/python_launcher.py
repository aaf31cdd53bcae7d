"""Start processes that run this package: with a fork server, or with exec."""

from __future__ import annotations

import logging
import pickle
import sys
from collections.abc import Mapping, Sequence
from subprocess import DEVNULL
from typing import Any

from attrs import define, evolve, field

from trio_supervisor.process.child import ChildProcess
from trio_supervisor.process.code.code_files import changed_file
from trio_supervisor.process.identity import Identity
from trio_supervisor.process.output.hub import ChildOutput
from trio_supervisor.process.repeated_failures import RepeatedFailures
from trio_supervisor.process.shortage import text_of
from trio_supervisor.process.spawn.attributes import NO_ATTRIBUTES, ProcessAttributes
from trio_supervisor.process.spawn.boot import NO_MONITORS, SupervisorBoot, WorkerBoot
from trio_supervisor.process.spawn.code_source import shown_path
from trio_supervisor.process.spawn.documents import interpreter_flags, open_document
from trio_supervisor.process.spawn.exec import spawn_exec
from trio_supervisor.process.spawn.fork_client import ForkClient
from trio_supervisor.process.spawn.generation_code import CodeLostError
from trio_supervisor.process.spawn.refused import AttributeRefusedError
from trio_supervisor.process.threads import run_in_thread

logger = logging.getLogger(__name__)


@define(eq=False)
class PythonLauncher:
    """Starts processes that run this package: by a fork server, or by exec."""

    _module: str
    """Its ``main:run_forked`` is the entry of a forked child, and ``-m`` runs it."""
    _title: str
    """That ps and top show: a forked child sets it, exec gets it as an argument."""
    _fork_client: ForkClient | None
    _files: Mapping[str, str] | None = None
    """Those of the code that it is to run: see `code_files`; None: not known."""
    _trouble: RepeatedFailures = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._trouble = RepeatedFailures(logger, f"{self._title}: forking works")

    @property
    def forks_in_progress(self) -> int:
        """Children that are being forked at the moment."""
        return 0 if self._fork_client is None else self._fork_client.forks_in_progress

    async def start(
        self,
        boot: WorkerBoot | SupervisorBoot,
        environment: Mapping[str, str],
        descriptors: Sequence[int],
        output: ChildOutput | None = None,
        attributes: ProcessAttributes = NO_ATTRIBUTES,
        identity: Identity | None = None,
        stdin: int | None = None,
    ) -> ChildProcess:
        """Start one, which gets *boot* and *descriptors*, and writes into *output*."""
        streams = output.descriptors if output is not None else None
        problem = ""
        process = None
        try:
            process = await self._fork(
                boot,
                environment=environment,
                descriptors=descriptors,
                stdin=stdin,
                streams=streams,
                prepare=attributes.forked_preparation(identity),
                own=attributes.own(),
            )
        except OSError as exc:
            problem = self._why_exec(boot, exc)
        if process is None:
            process = await self._exec(
                await self._with_code(boot),
                [*descriptors],
                environment=environment,
                stdin=DEVNULL if stdin is None else stdin,
                stdout=None if streams is None else streams[0],
                stderr=None if streams is None else streams[1],
                prepare=attributes.prepare,
                own=attributes.own(identity),
            )
        if problem:
            self._trouble.failed(problem, logging.WARNING)
        return process

    def _why_exec(self, boot: WorkerBoot | SupervisorBoot, exc: OSError) -> str:
        """Return the problem that exec is used for instead of a fork; may be empty."""
        if isinstance(exc, AttributeRefusedError):
            raise exc  # exec would be refused as well
        if not isinstance(exc, CodeLostError):
            return f"{self._title}: cannot fork: {text_of(exc)}; started with exec"
        if not isinstance(boot, SupervisorBoot):
            raise exc
        logger.debug("%s: %s; starting it with exec", self._title, exc)
        return ""

    async def _fork(
        self, boot: WorkerBoot | SupervisorBoot, **options: Any
    ) -> ChildProcess | None:
        """Start one with the fork server; None: there is none."""
        if self._fork_client is None:
            return None
        process = await self._fork_client.fork(
            f"{self._module}.main:run_forked",
            boot,
            title=self._title,
            runs_application=isinstance(boot, WorkerBoot),
            **options,
        )
        self._trouble.worked()
        return process

    async def _exec(
        self,
        boot: WorkerBoot | SupervisorBoot,
        descriptors: Sequence[int],
        **options: Any,
    ) -> ChildProcess:
        """Start one with a new interpreter."""
        with open_document(pickle.dumps(boot)) as document:
            inherit = [document, *descriptors]
            python = [sys.executable, *interpreter_flags()]
            return await spawn_exec(
                [*python, "-m", self._module, self._title, *map(str, inherit)],
                inherit=inherit,
                **options,
            )

    async def _with_code(
        self, boot: WorkerBoot | SupervisorBoot
    ) -> WorkerBoot | SupervisorBoot:
        """Say what a process that imports again finds changed, where it is."""
        if not self._files:
            return boot
        path = await run_in_thread(changed_file, self._files)
        if path is None:
            return boot
        what = f"{shown_path(path)} has changed since this generation was imported"
        if isinstance(boot, SupervisorBoot):
            logger.warning("%s: %s; monitors are off until a reload", self._title, what)
            return evolve(boot, source=NO_MONITORS)
        logger.warning(
            '%s: %s; this worker runs the new code (start_method="exec" imports it '
            "again); reload to run it in all workers",
            self._title,
            what,
        )
        return boot
