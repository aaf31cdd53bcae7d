"""Checks of single fields: each returns what is kept, or names the field. Pure."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeGuard

from trio_supervisor.errors import SpecError
from trio_supervisor.policy.order import CONDITIONS, Condition
from trio_supervisor.policy.restart import Backoff, RestartPolicy, RestartRules
from trio_supervisor.policy.roles import GRANTS
from trio_supervisor.policy.secrets import hide_text
from trio_supervisor.wire.limits import MAX_STATE

# A name is part of paths, of process titles and of `NAME.INDEX` on command lines.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
SUPERVISOR_NAME: Final = "supervisor"
RESERVED_NAMES: Final = frozenset({SUPERVISOR_NAME, "controller", "guardian", "all"})
_MAX_SECONDS: Final = 366 * 86_400.0
# Half of what a message may have: messages carry a state within a state.
_MAX_DEPTH: Final = 32
# What a worker says of itself has to fit beside it: its name, its process id.
_MAX_STATE: Final = MAX_STATE - 1024


def name(field: str, value: object, reserved: frozenset[str] = RESERVED_NAMES) -> str:
    """Return *value* if it can name a service, a group or an application."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise SpecError(
            field,
            f"expected up to 64 letters, digits, '-' and '_', starting with a letter "
            f"or digit, got {shown(value)}",
        )
    if value in reserved:
        raise SpecError(field, f"{value!r} is reserved; choose another name")
    return value


def flag(field: str, value: object) -> bool:
    """Return *value* if it is True or False."""
    if not isinstance(value, bool):
        raise SpecError(field, f"expected True or False, got {shown(value)}")
    return value


def integer(field: str, value: object, *, least: int, most: int | None = None) -> int:
    """Return *value* if it is a whole number within its limits."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(field, f"expected a whole number, got {shown(value)}")
    if value < least:
        raise SpecError(field, f"expected {least} or more, got {shown(value)}")
    if most is not None and value > most:
        raise SpecError(field, f"expected {most} or less, got {shown(value)}")
    return value


def integer_or_none(field: str, value: object, *, least: int) -> int | None:
    """Return *value* if it is None, or a whole number and no less than *least*."""
    return None if value is None else integer(field, value, least=least)


def seconds(field: str, value: object, *, least: float) -> float:
    """Return *value* if it is a number from *least* to a year [s]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(field, f"expected a number of seconds, got {shown(value)}")
    if not least <= value <= _MAX_SECONDS:
        problem = f"expected {least} to {_MAX_SECONDS} s, got {shown(value)}"
        raise SpecError(field, problem)
    return float(value)


def seconds_or_none(field: str, value: object, *, least: float = 1e-6) -> float | None:
    """Return *value* if it is None, or a number from *least* to a year [s]."""
    return None if value is None else seconds(field, value, least=least)


def one_of(field: str, value: object, choices: tuple[Any, ...]) -> Any:
    """Return *value* if it is one of *choices*."""
    if value not in choices:
        expected = ", ".join(map(repr, choices))
        raise SpecError(field, f"expected one of {expected}, got {shown(value)}")
    return value


def some_of_kind(field: str, value: object, kind: type[Any], article: str) -> Any:
    """Return *value* if it is None or a *kind*."""
    if value is not None and not isinstance(value, kind):
        expected = f"{article} {kind.__name__} or None"
        raise SpecError(field, f"expected {expected}, got {shown(value)}")
    return value


def items(field: str, value: object) -> tuple[Any, ...]:
    """Return the items of *value* if it is a list, or anything of that kind."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise SpecError(field, f"expected a list, got {shown(value)}")
    return tuple(value)


def rules(
    restart: object,
    backoff: object,
    intensity: object,
    period: object,
    success: frozenset[int],
    give_up_on: frozenset[int],
) -> RestartRules:
    """Return the rules that the fields of these names make up."""
    if not isinstance(restart, RestartPolicy):
        values = tuple(policy.value for policy in RestartPolicy)
        restart = RestartPolicy(one_of("restart", restart, values))
    return RestartRules(
        policy=restart,
        backoff=some_of_kind("backoff", backoff, Backoff, "a"),
        intensity=integer_or_none("intensity", intensity, least=0),
        period=seconds("period", period, least=1e-3),
        success=success,
        give_up_on=give_up_on,
    )


def exit_codes(field: str, value: object) -> frozenset[int]:
    """Return the exit codes in the list *value*."""
    return frozenset(
        integer(f"{field}[{index}]", item, least=0, most=255)
        for index, item in enumerate(items(field, value))
    )


def returncodes(field: str, value: object) -> frozenset[int]:
    """Return the exit codes, and the signals n as -n, in the list *value*."""
    codes = set()
    for index, item in enumerate(items(field, value)):
        where = f"{field}[{index}]"
        if isinstance(item, signal.Signals | str):
            codes.add(-ending_signal(where, item))
        else:
            codes.add(integer(where, item, least=0, most=255))
    return frozenset(codes)


def ending_signal(field: str, value: object) -> signal.Signals:
    """Return the signal that *value* is or names, if it can end a process."""
    found = _signal(field, value)
    if found in (signal.SIGSTOP, signal.SIGCONT, signal.SIGCHLD):
        raise SpecError(field, f"{found.name} does not end a process")
    return found


def signals(
    field: str, value: object, allowed: Sequence[signal.Signals]
) -> tuple[signal.Signals, ...]:
    """Return the signals in the list *value*, if all are *allowed*, each once."""
    found = []
    for index, item in enumerate(items(field, value)):
        number = _signal(f"{field}[{index}]", item)
        if number not in allowed:
            names = ", ".join(signal.Signals(number).name for number in allowed)
            raise SpecError(
                f"{field}[{index}]", f"expected one of {names}, got {number.name}"
            )
        found.append(number)
    return tuple(dict.fromkeys(found))


def grants(field: str, value: object) -> tuple[str, ...]:
    """Return the grants in the list *value*, each once."""
    found = [
        one_of(f"{field}[{index}]", item, tuple(GRANTS))
        for index, item in enumerate(items(field, value))
    ]
    return tuple(dict.fromkeys(found))


def _signal(field: str, value: object) -> signal.Signals:
    if isinstance(value, signal.Signals):
        return value
    if isinstance(value, str):
        full = value if value.startswith("SIG") else f"SIG{value}"
        if (found := signal.Signals.__members__.get(full)) is not None:
            return found
    raise SpecError(field, f"expected a signal such as 'SIGTERM', got {shown(value)}")


def arguments(field: str, value: object) -> tuple[str, ...]:
    """Return the program and its arguments, if that is what *value* is."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        problem = f"expected a list: the program and its arguments, got {shown(value)}"
        raise SpecError(field, problem)
    for index, item in enumerate(value):
        if not is_text(item):
            raise SpecError(
                f"{field}[{index}]", f"expected a string, got {shown(item)}"
            )
    return tuple(value)


def arguments_or_none(field: str, value: object) -> tuple[str, ...] | None:
    """Return None for None, else as `arguments`."""
    return None if value is None else arguments(field, value)


def dictionary(field: str, value: object) -> dict[Any, Any]:
    """Return *value* as a dictionary: a copy, and an empty one for None."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SpecError(field, f"expected a dictionary, got {shown(value)}")
    return dict(value)


def strings(field: str, value: object) -> dict[str, str]:
    """Return *value* if it can be added to an environment."""
    variables = dictionary(field, value)
    for key, item in variables.items():
        if not is_text(key) or not key or "=" in key:
            raise SpecError(field, f"not the name of a variable: {shown(key)}")
        if not is_text(item):
            problem = f"expected a string, got {kind_of(item)}"
            raise SpecError(f"{field}[{key!r}]", problem)
    return variables


def conditions(field: str, value: object) -> dict[str, Condition]:
    """Return *value* if it says for names of services what is waited for."""
    conditions = dictionary(field, value)
    for key, condition in conditions.items():
        if not isinstance(key, str):
            raise SpecError(field, f"not the name of a service: {shown(key)}")
        one_of(f"{field}[{key!r}]", condition, CONDITIONS)
    return conditions


def text_or_none(field: str, value: object) -> str | None:
    """Return *value* if it is None, or a path."""
    if value is not None and not is_text(value):
        raise SpecError(field, f"expected a path as a string, got {shown(value)}")
    return value


def is_text(value: object) -> TypeGuard[str]:
    """Whether a system call takes *value*: see `os.fsencode`."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def json_object(field: str, value: object, depth: int = 0) -> dict[str, Any]:
    """Return *value* if it is an object of JSON that fits into a message."""
    found = dictionary(field, value)
    for key, item in found.items():
        if not isinstance(key, str):
            raise SpecError(field, f"expected strings as keys, got {shown(key)}")
        _check_json(f"{field}[{key!r}]", item, depth + 1)
    return found


def state(field: str, value: object) -> dict[str, Any]:
    """Return *value* if a worker may register with it."""
    found = json_object(field, value)
    size = len(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
    if size > _MAX_STATE:
        raise SpecError(
            field, f"has {size} bytes as JSON; at most {_MAX_STATE} are accepted"
        )
    return found


def _check_json(field: str, value: object, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise SpecError(field, f"nested deeper than {_MAX_DEPTH} levels")
    match value:
        case int() if not -(2**63) <= value < 2**64:
            raise SpecError(field, "expected a number of 64 bits at most")
        case None | bool() | int() | float() | str():
            return
        case list() | tuple():
            for index, item in enumerate(value):
                _check_json(f"{field}[{index}]", item, depth + 1)
        case dict():
            json_object(field, value, depth)
        case _:
            raise SpecError(field, f"expected a JSON value, got {kind_of(value)}")


def kind_of(value: object) -> str:
    """Return what *value*, which may be a secret, is."""
    if isinstance(value, str):
        what = "a NUL character" if "\0" in value else "characters of no encoding"
        return f"one with {what}"
    return f"a value of type {type(value).__name__}"


def shown(value: object) -> str:
    """Return *value* as an error message shows it, whatever it is.

    What looks like a secret is hidden.
    """
    try:
        return f"{hide_text(repr(value)):.80}"
    except Exception:  # whatever a __repr__ raises; an integer of 5,000 digits does
        return f"a value of type {type(value).__name__}"
