"""Write the declaration that the importing process sends to the controller.

`declaration` reads it. This module reads and hashes source files, which a controller
does not need.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from trio_supervisor.application import Application, Service, application_to_plain
from trio_supervisor.errors import SupervisorError, TargetError
from trio_supervisor.process.code.code_files import files_of_import
from trio_supervisor.process.code.fingerprint import Code, code_of
from trio_supervisor.process.imports.declaration import (
    MAX_MESSAGE,
    Declared,
    facts_from,
    line_of,
)

# Saved now: an import may replace `json.dumps`.
_dumps: Final = json.dumps


def declared(application: Application) -> Declared:
    """Return the declaration of *application*, which this process has imported."""
    prints = _fingerprints(codes_of(application))
    return Declared(application=application, facts=facts_from(application, prints))


def application_answer(
    application: Application, codes: Mapping[str, Code], import_seconds: float
) -> bytes:
    """Return the answer of a process that has imported *application*.

    Args:
        codes: See `codes_of`.
        import_seconds: How long the import took [s].
    """
    try:
        document = {
            "application": application_to_plain(application),
            "fingerprints": _fingerprints(codes),
            "files": files_of_import(),
            "places": dict(application.places),
            "import_seconds": round(import_seconds, 6),
        }
        return _dumps(document).encode()
    except Exception as exc:  # a field was changed after it was validated
        problem = f"the declaration cannot be sent to the controller: {line_of(exc)}"
        return error_answer(TargetError(problem))


def error_answer(exc: SupervisorError) -> bytes:
    """Return the answer of a process whose import failed."""
    message = str(exc)[:MAX_MESSAGE]
    return _dumps({"error": exc.wire_name, "message": message}).encode()


def codes_of(application: Application) -> dict[str, Code]:
    """Return the code of each Python service, by its name."""
    return {
        service.name: code_of(service.target)
        for service in application.services
        if isinstance(service, Service)
    }


def _fingerprints(codes: Mapping[str, Code]) -> dict[str, str]:
    return {name: code.fingerprint for name, code in codes.items()}
