"""Read and check the declaration that an import has sent to the controller.

It is JSON: the controller never unpickles data that application code could have
written, and validates every field again. `declaration_answer` writes it; that module is
not loaded in the controller.
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
"""Largest declaration that is accepted; a normal one has a few kilobytes [bytes]."""
_LONGEST: Final = 366 * 86_400.0
"""Longest import that is believed [s]."""
MAX_MESSAGE: Final = 10_000
"""Longest error message that is passed on [characters]."""


@frozen(kw_only=True)
class Declared:
    """The application that an import defines, with what a reload compares."""

    application: Application
    """Functions and monitors may be names only: see `application.plain`."""
    facts: Mapping[str, ServiceFacts]
    files: Mapping[str, str] | None = None
    """Hash of each imported source file, by path; None: unknown."""
    import_seconds: float | None = None
    """How long the import took [s]; None: unknown."""


def read_answer(data: bytes, target: str) -> Declared:
    """Return the declaration in *data*, the answer of the process that ran the import.

    Raises:
        TargetError, SpecError, PlatformError: the import failed, or the declaration is
            invalid.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as exc:
        problem = f"the import returned no valid declaration: {line_of(exc)}"
        raise TargetError(f"{target}: {problem}") from None
    if not isinstance(document, dict):
        raise TargetError(f"{target}: the import returned no valid declaration")
    if "error" in document:
        raise _error(document)
    try:
        application = application_from_plain(document.get("application"))
    except SpecError as exc:
        raise SpecError(f"{target}: {exc.field}", exc.problem) from None
    except RecursionError:
        raise TargetError(f"{target}: the declaration is nested too deeply") from None
    application.places = _texts(document.get("places"))
    prints = document.get("fingerprints")
    facts = facts_from(application, prints if isinstance(prints, dict) else {})
    files = files_from_answer(document.get("files"))
    return Declared(
        application=application,
        facts=facts,
        files=files,
        import_seconds=_seconds(document.get("import_seconds")),
    )


def _texts(value: object) -> dict[str, str]:
    pairs = value.items() if isinstance(value, dict) else ()
    return {key: text for key, text in pairs if isinstance(text, str)}


def _seconds(value: object) -> float | None:
    if isinstance(value, float) and 0.0 <= value <= _LONGEST:  # not NaN, either
        return value
    return None


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
    """Return the facts of all services; *prints* are the fingerprints of their code."""
    return {
        service.name: facts_of(service, str(prints.get(service.name, "")))
        for service in application.services
    }


def line_of(exc: BaseException) -> str:
    """Return class and message of *exc* on one line."""
    text = " ".join(str(exc).split())
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__
