"""Import an application in a separate process, and return its declaration.

``python -m trio_supervisor.process.imports.import_check SOURCE RESULT REPORT`` with
the descriptors of three files: the pickled `Reference`, the answer, and the progress
report of the import. Used on systems without a fork server; the answer is the same.
"""

from __future__ import annotations

import math
import os
import pickle
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import trio

from trio_supervisor.errors import TargetError
from trio_supervisor.process.cleanup.stopping import StopPlan, stop
from trio_supervisor.process.imports.declaration import Declared, read_answer
from trio_supervisor.process.imports.declaration_wait import (
    IMPORT_TIMEOUT,
    ended_text,
    late_text,
    log_progress,
    read_file,
    shown_target,
)
from trio_supervisor.process.imports.import_report import read_report
from trio_supervisor.process.imports.import_watch import open_report, record_import
from trio_supervisor.process.spawn.code_source import Reference
from trio_supervisor.process.spawn.documents import interpreter_flags, open_document
from trio_supervisor.process.spawn.exec import spawn_exec
from trio_supervisor.process.spawn.load import import_error
from trio_supervisor.process.spawn.preload import load_source
from trio_supervisor.tasks import open_nursery

_KILL: Final = StopPlan(timeout=0.0)


async def declare(
    source: Reference,
    environment: Mapping[str, str],
    within: float | None = IMPORT_TIMEOUT,
) -> Declared:
    """Import *source* in a separate process, and return its declaration.

    A cancellation kills that process.

    Raises:
        TargetError, SpecError, PlatformError: the import failed, or the declaration is
            invalid; the message is that of `load_application`.
        OSError: the process cannot be started.
    """
    report = open_report()
    try:
        return await _declare(source, environment, within, report)
    finally:
        os.close(report)


async def _declare(
    source: Reference,
    environment: Mapping[str, str],
    within: float | None,
    report: int,
) -> Declared:
    shown = shown_target(source.target)
    with open_document(b"") as result:
        with open_document(pickle.dumps(source)) as document:
            numbers = [document, result, report]
            process = await spawn_exec(
                [
                    sys.executable,
                    *interpreter_flags(),
                    "-m",
                    "trio_supervisor.process.imports.import_check",
                    *map(str, numbers),
                ],
                environment=environment,
                inherit=numbers,
            )
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(log_progress, process.pid, report, shown)
                with trio.move_on_after(within or math.inf) as scope:
                    code = await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            await stop(process, _KILL)
            process.close()
        data = read_file(result)
    if scope.cancelled_caught:
        raise TargetError(late_text(read_report(report), shown, within))
    if not data:
        raise TargetError(ended_text(read_report(report), shown, code))
    return read_answer(data, shown)


def main() -> None:
    """Import the application, and write its declaration."""
    # Imported here: the controller loads this module too, and does not need these.
    from trio_supervisor.process.imports.declaration_answer import (
        application_answer,
        codes_of,
        error_answer,
    )

    document, result, report = map(int, sys.argv[1:4])
    sys.argv[1:] = []
    process_id = os.getpid()
    with os.fdopen(document, "rb") as file:
        file.seek(0)
        source = pickle.load(file)
    with record_import(report):
        began = time.perf_counter()
        try:
            application = load_source(source)
            seconds = time.perf_counter() - began
            codes = codes_of(application)
            answer = application_answer(application, codes, seconds)
        except BaseException as exc:  # KeyboardInterrupt too: the import raised it
            answer = error_answer(import_error(exc, source.target))
    if os.getpid() == process_id:  # else a child that the import forked
        with os.fdopen(result, "wb") as file:
            file.write(answer)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # closed, or None
            stream.flush()
    os._exit(0)  # threads that the import has started do not delay the exit


if __name__ == "__main__":
    main()
