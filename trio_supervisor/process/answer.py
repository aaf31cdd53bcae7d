"""What an import declares, as it travels from the importing process to the controller.

JSON: the controller unpickles nothing that application code could have had a hand in,
and checks every field again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from trio_supervisor.errors import (
    PlatformError,
    SpecError,
    SupervisorError,
    TargetError,
)
from trio_supervisor.policy.reload import ServiceFacts
from trio_supervisor.process.code_files import files_from_answer, files_of_import
from trio_supervisor.process.fingerprint import Code, code_of
from trio_supervisor.spec import (
    Application,
    Service,
    application_from_plain,
    application_to_plain,
    facts_of,
)

# Its own: an import may have put another function in its place.
_dumps: Final = json.dumps
MAX_ANSWER: Final = 64 * 1024 * 1024
"""A declaration is a few kilobytes; past this it is refused [B]."""
_MAX_MESSAGE: Final = 10_000


@frozen(kw_only=True)
class Declared:
    """What an import declares."""

    application: Application
    """Its functions and monitors may be only names: see `spec.plain`."""
    facts: Mapping[str, ServiceFacts]
    files: Mapping[str, str] | None = None
    """A hash of each source file that was imported, by its path; None: unknown."""


def declared(application: Application) -> Declared:
    """Return what *application*, which was imported here, declares."""
    prints = _fingerprints(codes_of(application))
    return Declared(application=application, facts=_facts(application, prints))


def application_answer(application: Application, codes: Mapping[str, Code]) -> bytes:
    """Return the answer of a process that has imported *application*.

    Args:
        codes: See `codes_of`.
    """
    try:
        document = {
            "application": application_to_plain(application),
            "fingerprints": _fingerprints(codes),
            "files": files_of_import(),
        }
        return _dumps(document).encode()
    except Exception as exc:  # a field was replaced after its check
        problem = f"the declaration cannot be sent to the controller: {_line(exc)}"
        return error_answer(TargetError(problem))


def error_answer(exc: SupervisorError) -> bytes:
    """Return the answer of a process whose import failed."""
    message = str(exc)[:_MAX_MESSAGE]
    return _dumps({"error": exc.wire_name, "message": message}).encode()


def read_answer(data: bytes, target: str) -> Declared:
    """Return what the process that imported *target* answered, checked again.

    Raises:
        TargetError, SpecError, PlatformError: the import failed, or what it declares
            does not fit.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as exc:
        problem = f"no declaration came from its import: {_line(exc)}"
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
    facts = _facts(application, prints if isinstance(prints, dict) else {})
    files = files_from_answer(document.get("files"))
    return Declared(application=application, facts=facts, files=files)


def _error(document: Mapping[str, Any]) -> SupervisorError:
    message = str(document.get("message"))[:_MAX_MESSAGE]
    match document["error"]:
        case "Spec":
            return SpecError("", message)
        case "Platform":
            return PlatformError(message)
    return TargetError(message)


def _facts(
    application: Application, prints: Mapping[str, object]
) -> dict[str, ServiceFacts]:
    return {
        service.name: facts_of(service, str(prints.get(service.name, "")))
        for service in application.services
    }


def codes_of(application: Application) -> dict[str, Code]:
    """Return the code of each Python service, by its name."""
    return {
        service.name: code_of(service.target)
        for service in application.services
        if isinstance(service, Service)
    }


def _fingerprints(codes: Mapping[str, Code]) -> dict[str, str]:
    return {name: code.fingerprint for name, code in codes.items()}


def _line(exc: BaseException) -> str:
    text = " ".join(str(exc).split())
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__
