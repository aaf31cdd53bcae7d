"""Find the application to serve where no target is given."""

from __future__ import annotations

import os
from typing import Final

from trio_supervisor.errors import TargetError
from trio_supervisor.process.spawn.code_source import PROCFILE, PYPROJECT

NAMES: Final = ("service.py", "supervisor.toml", PYPROJECT, PROCFILE)
"""Files that may be the target, the first that exists before the others."""


def find_target() -> str:
    """Return the name of the file in the current directory to serve.

    Raises:
        TargetError: there is none.
    """
    for name in NAMES:
        if os.path.isfile(name) and (name != PYPROJECT or _has_table(name)):
            return name
    try:
        where = os.getcwd()
    except FileNotFoundError:
        problem = "the current directory was removed; change to another one"
        raise TargetError(problem) from None
    raise TargetError(
        f"no target given, and {where} contains none of service.py, supervisor.toml, "
        f"pyproject.toml with [tool.trio_supervisor], Procfile; "
        f"`trio-supervisor init` writes a service.py, `init --toml` a supervisor.toml"
    )


def _has_table(path: str) -> bool:
    """Return whether to use the pyproject.toml *path*; if malformed, for its error."""
    import tomllib  # only here: it takes 4 ms

    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except (OSError, ValueError, RecursionError):
        return True
    tool = document.get("tool")
    return isinstance(tool, dict) and "trio_supervisor" in tool
