"""Read a Procfile: a line ``NAME: COMMAND`` for each service."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final

from trio_supervisor.application.templates import escaped
from trio_supervisor.config.files import read_environment_file, read_text
from trio_supervisor.config.positions import KeyPath
from trio_supervisor.config.problems import ConfigFile, Problems

_LINE: Final = re.compile(r"([A-Za-z0-9_-]+)\s*:\s*(.*\S)")
# As foreman(1) does it: the first service gets 5000, the second 5100 …
_FIRST_PORT: Final = 5000
_BETWEEN: Final = 100
_LAST_PORT: Final = 65_535
ENVIRONMENT_FILE: Final = ".env"
RELEASE: Final = "release"
"""Name of what runs once, before the others: Heroku's *release phase*."""


def read_procfile(path: str, shown: str, environment: Mapping[str, str]) -> ConfigFile:
    """Return the configuration that the Procfile *path* amounts to.

    Each command runs in a shell, with the variables of ``.env`` beside the file and a
    ``PORT`` of its own; ``release`` runs first, and once.

    Raises:
        TargetError: the file cannot be read.
        SpecError: a line is malformed.
    """
    text = read_text(path, shown)
    services: dict[str, Any] = {}
    lines: dict[KeyPath, int] = {}
    file = ConfigFile(
        path=path, shown=shown, values={"services": services}, lines=lines
    )
    has_variables = os.path.exists(
        os.path.join(os.path.dirname(path), ENVIRONMENT_FILE)
    )
    if has_variables:
        file.values["env_file"] = ENVIRONMENT_FILE
    port = _first_port(path, has_variables, environment)
    problems = Problems()
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        name = match[1] if match else line.split(maxsplit=1)[0].rstrip(":")
        key: KeyPath = ("services", name)
        first = lines.setdefault(key, number)
        if match is None:
            lines[key] = number
            problems.add(file, key, "expected NAME: COMMAND")
        elif name in services:
            lines[key] = number
            problems.add(file, key, f"already declared in line {first}")
        else:
            services[name] = _service(match[2], port + _BETWEEN * len(services))
    problems.raise_if_any()
    if RELEASE in services:
        _run_first(services)
    return file


def _run_first(services: dict[str, Any]) -> None:
    """Have the others wait until `RELEASE` has succeeded, as Heroku does."""
    services[RELEASE]["restart"] = "on-failure"
    for name, table in services.items():
        if name != RELEASE:
            table["depends_on"] = {RELEASE: "exited_ok"}


def _service(command: str, port: int) -> dict[str, Any]:
    # The shell replaces variables: nothing in the line is for us.
    words = ["sh", "-c", escaped(command).replace("${", "$${")]
    table: dict[str, Any] = {"command": words}
    if port <= _LAST_PORT:
        table["environment"] = {"PORT": f"{{{port}+index}}"}
    return table


def _first_port(path: str, has_file: bool, environment: Mapping[str, str]) -> int:
    text = environment.get("PORT", "")
    if has_file:
        where = os.path.join(os.path.dirname(path), ENVIRONMENT_FILE)
        variables = read_environment_file(where, ENVIRONMENT_FILE)
        if "PORT" in variables:
            text = variables["PORT"].text
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) else _FIRST_PORT
