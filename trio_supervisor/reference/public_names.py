"""Generate the stub of the package: its public names, for type checkers."""

from __future__ import annotations

from typing import Final

import trio_supervisor

_WIDTH: Final = 88
"""Of a line, as ruff formats it [characters]."""


def stub() -> str:
    """Return the text of ``trio_supervisor/__init__.pyi``."""
    lines = [
        "# Generated from EXPORTS in __init__.py by `python -m "
        "trio_supervisor.reference docs`.",
        "",
        "from collections.abc import Mapping",
        "",
    ]
    for home, names in sorted([("_version", ("__version__",)), *_exports()]):
        lines += [_imported(home, name) for name in names]
    lines += ["", "EXPORTS: Mapping[str, tuple[str, ...]]", "__all__ = ["]
    lines += [f'    "{name}",' for name in trio_supervisor.__all__]
    return "\n".join([*lines, "]", ""])


def _imported(home: str, name: str) -> str:
    line = f"from trio_supervisor.{home} import {name} as {name}"
    if len(line) <= _WIDTH:
        return line
    return f"from trio_supervisor.{home} import (\n    {name} as {name},\n)"


def _exports() -> list[tuple[str, tuple[str, ...]]]:
    return [(home, tuple(sorted(n))) for home, n in trio_supervisor.EXPORTS.items()]
