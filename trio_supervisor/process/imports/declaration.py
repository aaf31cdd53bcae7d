"""What an import declares, as the controller reads it.

JSON: the controller unpickles nothing that application code could have had a hand in,
and checks every field again. The other end is `answering`, which is not loaded here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from trio_supervisor.application import Application, application_from_plain, facts_of
from trio_supervisor.errors import (
    PlatformError,
    SpecError,
    SupervisorError,
    TargetError,
)
from trio_supervisor.policy.reload import ServiceFacts
from trio_supervisor.process.code.code_files import files_from_answer

MAX_ANSWER: Final = 64 * 1024 * 1024
"""A declaration is a few kilobytes; past this it is refused [B]."""
MAX_MESSAGE: Final = 10_000
"""Of an error [characters]."""


@frozen(kw_only=True)
class Declared:
    """What an import declares."""

    application: Application
    """Its functions and monitors may be only names: see `application.plain`."""
    facts: Mapping[str, ServiceFacts]
    files: Mapping[str, str] | None = None
    """A hash of each source file that was imported, by its path; None: unknown."""


def read_answer(data: bytes, target: str) -> Declared:
    """Return what the process that imported *target* answered, checked again.

    Raises:
        TargetError, SpecError, PlatformError: the import failed, or what it declares
            does not fit.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as exc:
        problem = f"no declaration came from its import: {line_of(exc)}"
        raise TargetError(f"{target}: {problem}") from None
    if not isinstance(document, dict):
        raise TargetError(f"{target}: no declaration came from its import")
    if "error" in document:
        raise _error(document)
    try:
        application = application_from_plain(document.get("application"))
    except SpecError as exc:
        raise SpecError(f"{target}: {exc.field}", exc.problem) from None
    except RecursionError:
        raise TargetError(f"{target}: its declaration is nested too deeply") from None
    prints = document.get("fingerprints")
    facts = facts_from(application, prints if isinstance(prints, dict) else {})
    files = files_from_answer(document.get("files"))
    return Declared(application=application, facts=facts, files=files)


def _error(document: Mapping[str, Any]) -> SupervisorError:
    message = str(document.get("message"))[:MAX_MESSAGE]
    match document["error"]:
        case "Spec":
            return SpecError("", message)
        case "Platform":
            return PlatformError(message)
    return TargetError(message)


def facts_from(
    application: Application, prints: Mapping[str, object]
) -> dict[str, ServiceFacts]:
    """Return the facts of all services, with the *prints* of their code."""
    return {
        service.name: facts_of(service, str(prints.get(service.name, "")))
        for service in application.services
    }


def line_of(exc: BaseException) -> str:
    """Return *exc* in one line."""
    text = " ".join(str(exc).split())
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__
