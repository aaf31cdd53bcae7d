"""Read configuration files, environment files and secrets."""

from __future__ import annotations

import io
import os
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from trio_supervisor.application import checks
from trio_supervisor.config.interpolation import Variable
from trio_supervisor.config.positions import lines_of
from trio_supervisor.config.problems import ConfigFile
from trio_supervisor.errors import SpecError, TargetError

_MAX_SIZE: Final = 4 * 1024 * 1024
_MAX_SECRET: Final = 128 * 1024
"""Largest single string of an environment: MAX_ARG_STRLEN of Linux [bytes]."""
_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
"""Where systemd puts the credentials of a unit; systemd.exec(5)."""
_SECRET_KEYS: Final = ("file", "credential")


def read_text(path: str, shown: str, limit: int = _MAX_SIZE) -> str:
    """Return the text of a regular file.

    Raises:
        TargetError: it cannot be read; the message names it as *shown*.
    """
    try:
        # O_NONBLOCK: a FIFO in its place must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise TargetError(f"{shown}: file not found") from None
    except IsADirectoryError:
        raise TargetError(f"{shown}: is a directory") from None
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise TargetError(f"{shown}: cannot be read: {reason}") from None
    if data is None or len(data) > limit:
        raise TargetError(f"{shown}: not a file of at most {limit} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise TargetError(f"{shown}, line {line}: not UTF-8") from None


def read_toml(path: str, shown: str, root: tuple[str, ...] = ()) -> ConfigFile:
    """Return the TOML file *path*, or its table *root*.

    Raises:
        TargetError: it cannot be read, is no TOML, or has no such table.
    """
    text = read_text(path, shown)
    try:
        values: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise TargetError(_syntax_error(str(exc), text, shown)) from None
    except RecursionError:
        raise TargetError(f"{shown}: nested too deeply") from None
    for number, key in enumerate(root):
        values = values.get(key) if isinstance(values, dict) else None
        if values is None:
            name = ".".join(root[: number + 1])
            raise TargetError(f"{shown}: has no table [{name}]")
    if not isinstance(values, dict):
        raise TargetError(f"{shown}: {'.'.join(root)} is not a table")
    depth, lines = len(root), lines_of(text)
    return ConfigFile(
        path=path,
        shown=shown,
        values=values,
        lines={key[depth:]: line for key, line in lines.items() if key[:depth] == root},
        first_line=lines.get(root, 1),
    )


def _syntax_error(message: str, text: str, shown: str) -> str:
    match = _PLACE.search(message)
    line = match[1] if match and match[1] else text.count("\n") + 1
    return f"{shown}, line {line}: not valid TOML: {_PLACE.sub('', message)}"


def read_environment_file(path: str, shown: str) -> dict[str, Variable]:
    """Return the variables of a file of ``NAME=value`` lines.

    Raises:
        TargetError: it cannot be read, or a line is malformed.
    """
    # Imported here: not every configuration has such a file.
    from dotenv.main import DotEnv
    from dotenv.parser import parse_stream

    text = read_text(path, shown)
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            original = binding.original
            skipped = len(original.string) - len(original.string.lstrip())
            line = original.line + original.string.count("\n", 0, skipped)
            # The line itself may contain a secret.
            raise TargetError(f"{shown}, line {line}: expected NAME=value")
        if binding.key is not None and binding.value is None:
            line = binding.original.line
            problem = f"{binding.key} has no value; expected {binding.key}=value"
            raise TargetError(f"{shown}, line {line}: {problem}")
    values = DotEnv(None, stream=io.StringIO(text), interpolate=True).dict()
    return {name: Variable(value or "") for name, value in values.items()}


def variable_of(
    value: object, directory: str, environment: Mapping[str, str], field: str
) -> Variable:
    """Return the definition of a variable: a text, a number, or a secret.

    Args:
        directory: What the path of a secret is relative to.
        environment: That of this process.

    Raises:
        SpecError: it is none of these, or the secret cannot be read.
    """
    if isinstance(value, str):
        return Variable(value, is_literal=False)
    if isinstance(value, int) and not isinstance(value, bool):
        return Variable(str(value))
    if isinstance(value, dict):
        return Variable(_secret(value, directory, environment, field), is_secret=True)
    problem = (
        "expected a string, a whole number, { file = ... } or { credential = ... }"
    )
    raise SpecError(field, f"{problem}, got {checks.kind_of(value)}")


def _secret(
    value: dict[str, Any], directory: str, environment: Mapping[str, str], field: str
) -> str:
    if len(value) != 1 or next(iter(value)) not in _SECRET_KEYS:
        found = ", ".join(map(str, value)) or "no key"
        problem = "expected { file = ... } or { credential = ... }"
        raise SpecError(field, f"{problem}, got {found}")
    (kind, name), *_ = value.items()
    where = f"{field}.{kind}"
    if not checks.is_text(name) or not name:
        raise SpecError(where, f"expected a string, got {checks.shown(name)}")
    path = os.path.join(directory, name)
    if kind == "credential":
        if "/" in name:
            problem = "expected the name of a credential, without a slash"
            raise SpecError(where, f"{problem}, got {checks.shown(name)}")
        if not (home := environment.get(CREDENTIALS)):
            problem = (
                f"{CREDENTIALS} is not set; systemd sets it for a unit with "
                f"LoadCredential={name}:PATH"
            )
            raise SpecError(where, problem)
        path = os.path.join(home, name)
    try:
        text = read_text(path, path, _MAX_SECRET).removesuffix("\n")
    except TargetError as exc:
        raise SpecError(where, str(exc)) from None
    if "\0" in text:
        raise SpecError(where, f"{path}: contains a NUL character")
    return text
