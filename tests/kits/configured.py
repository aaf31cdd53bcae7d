"""Make applications from the text of configuration files."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trio_supervisor.config.application_file import Configured, configure
from trio_supervisor.config.files import read_toml
from trio_supervisor.errors import TargetError


async def work(worker: object) -> None:
    """Be a target."""


def find_target(name: str) -> Any:
    """Import a name as a loader does, with a short message."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as exc:
        raise TargetError(str(exc)) from None


def configured(
    directory: Path,
    text: str,
    environment: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
) -> Configured:
    """Return what ``supervisor.toml`` with *text* declares; *files* lie beside it."""
    for name, content in {"supervisor.toml": text, **(files or {})}.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(content, encoding="utf-8")
    path = directory / "supervisor.toml"
    file = read_toml(os.fspath(path), "supervisor.toml")
    return configure(file, find_target, environment or {})
