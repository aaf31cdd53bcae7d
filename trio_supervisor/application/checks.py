"""Check single values of a declaration. Pure.

Each check takes a value, the name of its option for the error message, and limits. It
returns the value in the form that is kept, or raises `SpecError`. A value comes from a
service file: its annotation says what is right, and the check must survive anything.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeGuard

from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.metrics import Metrics
from trio_supervisor.policy.order import CONDITIONS, Condition
from trio_supervisor.policy.restart import Backoff, RestartPolicy
from trio_supervisor.policy.secrets import hide_text
from trio_supervisor.wire.limits import MAX_STATE

# A name is part of paths, of process titles and of `NAME.INDEX` on command lines.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
SUPERVISOR_NAME: Final = "supervisor"
RESERVED_NAMES: Final = frozenset({SUPERVISOR_NAME, "controller", "guardian", "all"})
SHORTEST: Final = 1e-6
"""Least value of a timeout, where 0 would make no sense [s]."""
LONGEST: Final = 366 * 86_400.0
"""Greatest value of any duration: a year [s]."""
# Half of the depth of a message, because messages contain a state within a state.
_MAX_DEPTH: Final = 32
# Leaves room for what the worker adds to its state: its name and its process id.
_MAX_STATE: Final = MAX_STATE - 1024
# With any other seed the interpreter exits before it runs any code, and a worker's fork
# server would only be known not to have started in time.
_MAX_HASH_SEED: Final = 2**32 - 1


def name(
    value: str, field: str = "", *, reserved: frozenset[str] = RESERVED_NAMES
) -> str:
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


def name_or_none(value: str | None, field: str = "") -> str | None:
    """Return *value* if it is None or a name."""
    return None if value is None else name(value, field)


def flag(value: bool, field: str = "") -> bool:
    """Return *value* if it is True or False."""
    if not isinstance(value, bool):
        raise SpecError(field, f"expected True or False, got {shown(value)}")
    return value


def integer(
    value: int, field: str = "", *, least: int | None = None, most: int | None = None
) -> int:
    """Return *value* if it is an integer from *least* to *most*."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(field, f"expected a whole number, got {shown(value)}")
    if least is not None and value < least:
        raise SpecError(field, f"expected {least} or more, got {shown(value)}")
    if most is not None and value > most:
        raise SpecError(field, f"expected {most} or less, got {shown(value)}")
    return value


def integer_or_none(
    value: int | None,
    field: str = "",
    *,
    least: int | None = None,
    most: int | None = None,
) -> int | None:
    """Return *value* if it is None, or an integer from *least* to *most*."""
    return None if value is None else integer(value, field, least=least, most=most)


def seconds(value: float, field: str = "", *, least: float = SHORTEST) -> float:
    """Return *value* if it is a number from *least* to a year [s]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(field, f"expected a number of seconds, got {shown(value)}")
    if not least <= value <= LONGEST:
        problem = f"expected {least} to {LONGEST} s, got {shown(value)}"
        raise SpecError(field, problem)
    return float(value)


def seconds_or_none(
    value: float | None, field: str = "", *, least: float = SHORTEST
) -> float | None:
    """Return *value* if it is None, or a number from *least* to a year [s]."""
    return None if value is None else seconds(value, field, least=least)


def seconds_or_zero(
    value: float | None, field: str = "", *, least: float = SHORTEST
) -> float:
    """Return 0 for None, or *value* if it is a number from *least* to a year [s]."""
    return 0.0 if value is None else seconds(value, field, least=least)


def one_of(value: Any, field: str = "", *, choices: Sequence[Any]) -> Any:
    """Return *value* if it is one of *choices*."""
    if value not in choices:
        expected = ", ".join(map(repr, choices))
        hint = did_you_mean(value, choices)
        problem = f"expected one of {expected}, got {shown(value)}{hint}"
        raise SpecError(field, problem)
    return value


def items(value: Sequence[Any], field: str = "") -> tuple[Any, ...]:
    """Return the items of *value* if it is a list or another sequence but a string."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise SpecError(field, f"expected a list, got {shown(value)}")
    return tuple(value)


def some_of(
    value: Sequence[str], field: str = "", *, choices: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the items of the list *value*, all of them *choices*, each once."""
    found = [
        one_of(item, f"{field}[{index}]", choices=choices)
        for index, item in enumerate(items(value, field))
    ]
    return tuple(dict.fromkeys(found))


def restart_policy(
    value: RestartPolicy | str, field: str = "", *, choices: Sequence[str] = ()
) -> RestartPolicy:
    """Return the policy that *value* is or names."""
    if isinstance(value, RestartPolicy):
        return value
    return RestartPolicy(one_of(value, field, choices=choices))


def backoff(value: Backoff | None, field: str = "") -> Backoff | None:
    """Return *value* if it is None or a `Backoff`."""
    if value is not None and not isinstance(value, Backoff):
        raise SpecError(field, f"expected a Backoff or None, got {shown(value)}")
    return value


def exit_codes(value: Sequence[int], field: str = "") -> frozenset[int]:
    """Return the exit codes in the list *value*."""
    return frozenset(
        integer(item, f"{field}[{index}]", least=0, most=255)
        for index, item in enumerate(items(value, field))
    )


def returncodes(
    value: Sequence[int | signal.Signals | str], field: str = ""
) -> frozenset[int]:
    """Return the exit codes in the list *value*, with signal n as -n."""
    codes = set()
    for index, item in enumerate(items(value, field)):
        where = f"{field}[{index}]"
        if isinstance(item, signal.Signals | str):
            codes.add(-ending_signal(item, where))
        else:
            codes.add(integer(item, where, least=0, most=255))
    return frozenset(codes)


def ending_signal(value: signal.Signals | str, field: str = "") -> signal.Signals:
    """Return the signal that *value* is or names, if it can end a process."""
    found = _signal(value, field)
    if found in (signal.SIGSTOP, signal.SIGCONT, signal.SIGCHLD):
        raise SpecError(field, f"{found.name} does not end a process")
    return found


def signals(
    value: Sequence[signal.Signals | str],
    field: str = "",
    *,
    choices: Sequence[signal.Signals] = tuple(signal.Signals),
) -> tuple[signal.Signals, ...]:
    """Return the signals in the list *value*, all of them *choices*, each once."""
    found = []
    for index, item in enumerate(items(value, field)):
        number = _signal(item, f"{field}[{index}]")
        if number not in choices:
            names = ", ".join(choice.name for choice in choices)
            raise SpecError(
                f"{field}[{index}]", f"expected one of {names}, got {number.name}"
            )
        found.append(number)
    return tuple(dict.fromkeys(found))


def _signal(value: signal.Signals | str, field: str) -> signal.Signals:
    if isinstance(value, signal.Signals):
        return value
    if isinstance(value, str):
        full = value if value.startswith("SIG") else f"SIG{value}"
        if (found := signal.Signals.__members__.get(full)) is not None:
            return found
    raise SpecError(field, f"expected a signal such as 'SIGTERM', got {shown(value)}")


def arguments(value: Sequence[str], field: str = "") -> tuple[str, ...]:
    """Return the program and its arguments in the list *value*."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        problem = f"expected a list: the program and its arguments, got {shown(value)}"
        raise SpecError(field, problem)
    for index, item in enumerate(value):
        if not is_text(item):
            raise SpecError(
                f"{field}[{index}]", f"expected a string, got {shown(item)}"
            )
    return tuple(value)


def arguments_or_none(
    value: Sequence[str] | None, field: str = ""
) -> tuple[str, ...] | None:
    """Return None for None, otherwise the same as `arguments`."""
    return None if value is None else arguments(value, field)


def dictionary(value: Mapping[Any, Any] | None, field: str = "") -> dict[Any, Any]:
    """Return a copy of the dictionary *value*; an empty one for None."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SpecError(field, f"expected a dictionary, got {shown(value)}")
    return dict(value)


def environment(value: Mapping[str, str] | None, field: str = "") -> dict[str, str]:
    """Return the environment variables in *value*."""
    variables = dictionary(value, field)
    for key, item in variables.items():
        if not is_text(key) or not key or "=" in key:
            raise SpecError(
                field, f"not the name of an environment variable: {shown(key)}"
            )
        if not is_text(item):
            problem = f"expected a string, got {kind_of(item)}"
            raise SpecError(f"{field}[{key!r}]", problem)
        if key == "PYTHONHASHSEED" and not _is_hash_seed(item):
            problem = f"expected 'random' or a number from 0 to {_MAX_HASH_SEED}"
            raise SpecError(f"{field}[{key!r}]", problem)
    return variables


def _is_hash_seed(text: str) -> bool:
    """Return whether an interpreter starts with PYTHONHASHSEED=*text*; braces may be
    an expression that is replaced for each worker.
    """
    if text in ("", "random") or "{" in text:
        return True
    return (
        text.isascii()
        and text.isdigit()
        and int(text.lstrip("0")[:11] or 0) <= _MAX_HASH_SEED
    )


def conditions(
    value: Mapping[str, Condition] | None, field: str = ""
) -> dict[str, Condition]:
    """Return the condition for each service in *value*."""
    found = dictionary(value, field)
    for key, condition in found.items():
        if not isinstance(key, str):
            raise SpecError(field, f"not the name of a service: {shown(key)}")
        one_of(condition, f"{field}[{key!r}]", choices=CONDITIONS)
    return found


def path_or_none(value: str | None, field: str = "") -> str | None:
    """Return *value* if it is None or can be a path."""
    if value is not None and not is_text(value):
        raise SpecError(field, f"expected a path as a string, got {shown(value)}")
    return value


def is_text(value: object) -> TypeGuard[str]:
    """Return whether system calls accept *value*: see `os.fsencode`."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def state(value: Mapping[str, Any] | None, field: str = "") -> dict[str, Any]:
    """Return *value* if a worker can register with it as its state."""
    found = _json_object(value, field)
    size = len(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
    if size > _MAX_STATE:
        raise SpecError(
            field, f"has {size} bytes as JSON; at most {_MAX_STATE} are accepted"
        )
    return found


def _json_object(value: Any, field: str, depth: int = 0) -> dict[str, Any]:
    found = dictionary(value, field)
    for key, item in found.items():
        if not isinstance(key, str):
            raise SpecError(field, f"expected strings as keys, got {shown(key)}")
        _check_json(item, f"{field}[{key!r}]", depth + 1)
    return found


def _check_json(value: object, field: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise SpecError(field, f"nested deeper than {_MAX_DEPTH} levels")
    match value:
        case int() if not -(2**63) <= value < 2**64:
            raise SpecError(field, "expected a number of 64 bits at most")
        case None | bool() | int() | float() | str():
            return
        case list() | tuple():
            for index, item in enumerate(value):
                _check_json(item, f"{field}[{index}]", depth + 1)
        case dict():
            _json_object(value, field, depth)
        case _:
            raise SpecError(field, f"expected a JSON value, got {kind_of(value)}")


def kind_of(value: object) -> str:
    """Describe *value*, which may be a secret, without showing it."""
    if isinstance(value, str):
        what = "a NUL character" if "\0" in value else "a lone surrogate"
        return f"one with {what}"
    return f"a value of type {type(value).__name__}"


def shown(value: object) -> str:
    """Return *value*, which may be any object, as an error message shows it.

    Secrets are hidden.
    """
    try:
        return f"{hide_text(repr(value)):.80}"
    except Exception:  # any __repr__ may raise; so does an integer of 5,000 digits
        return f"a value of type {type(value).__name__}"


def metrics(value: Metrics | None, field: str = "") -> Metrics | None:
    """Return *value* if it declares metrics, or is None."""
    if value is None or isinstance(value, Metrics):
        return value
    problem = f"expected Metrics(NAME=Counter(), …) or None, got {shown(value)}"
    raise SpecError(field, problem)
