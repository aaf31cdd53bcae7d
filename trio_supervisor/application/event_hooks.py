"""Declare programs and web hooks that receive events. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from attrs import field, frozen

from trio_supervisor.application import checks
from trio_supervisor.application.fields import (
    Checked,
    checked_later,
    documented,
    option,
)
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.event_types import EVENT_TYPES

Level: TypeAlias = Literal["info", "warning", "error"]

_PRINTABLE: Final = re.compile(r"[!-~]+")
_MOST_PER_MINUTE: Final = 6000


def _names(value: Sequence[str], field: str = "") -> tuple[str, ...]:
    found = checks.items(value, field)
    for index, name in enumerate(found):
        if not checks.is_text(name):
            problem = f"expected a name, got {checks.shown(name)}"
            raise SpecError(f"{field}[{index}]", problem)
    return tuple(found)


def _url(value: str, field: str = "") -> str:
    if not (checks.is_text(value) and _is_address(value)):
        problem = "expected https://HOST/PATH"
        raise SpecError(field, f"{problem}, got {checks.shown(value)}")
    return value


def _is_address(text: str) -> bool:
    if not _PRINTABLE.fullmatch(text):
        return False
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


@frozen(kw_only=True, slots=False, field_transformer=checked_later)
class EventHook(Checked):
    """Options that `Exec` and `Webhook` share."""

    types: tuple[str, ...] = field(
        default=(),
        converter=checks.some_of,
        metadata=option(
            "Types of the events that it receives; none: those of `level`.",
            choices=EVENT_TYPES,
        ),
    )
    level: Level = field(
        default="warning",
        metadata=option(
            "Without `types`: the least level of the events that it receives. Crashes "
            "are warnings; what needs an operator is an error.",
            choices=("info", "warning", "error"),
        ),
    )
    names: tuple[str, ...] = field(
        default=(),
        converter=_names,
        metadata=option(
            "Only events of these workers, services, or patterns such as `web.*`; "
            "none: all."
        ),
    )
    timeout: float = field(
        default=10.0,
        converter=checks.seconds,
        metadata=option("Longest time that one attempt may take.", unit="s"),
    )
    most_per_minute: int = field(
        default=30,
        converter=checks.integer,
        metadata=option(
            "Events that it receives within a minute; the log counts those left out.",
            least=1,
            most=_MOST_PER_MINUTE,
        ),
    )


@documented
@frozen(slots=False, field_transformer=checked_later)
class Exec(EventHook):
    """A program that is run for events.

    It gets the event in its environment: ``EVENT`` is all of it as JSON,
    ``EVENT_TYPE``, ``EVENT_NAME`` and ``EVENT_MESSAGE`` are its parts. Example::

        Exec(["./page.sh"], types=["gave_up", "group_failed"])

    Raises:
        SpecError: the value of an option is not valid; the message names the option.
    """

    arguments: tuple[str, ...] = field(
        converter=checks.arguments,
        metadata=option(
            "Program and its arguments, started without a shell in the directory of "
            "the controller."
        ),
    )


@documented
@frozen(slots=False, field_transformer=checked_later)
class Webhook(EventHook):
    """An address that events are sent to: POST with the event as JSON.

    Any status from 200 to 299 is success. Example::

        Webhook("https://chat.example.org/hooks/x", names=["web"])

    Raises:
        SpecError: the value of an option is not valid; the message names the option.
    """

    url: str = field(
        converter=_url, metadata=option("Address, `https://…` or `http://…`.")
    )


def event_hooks(
    value: Sequence[Exec | Webhook], field: str = ""
) -> tuple[Exec | Webhook, ...]:
    """Return the hooks in the list *value*."""
    found = checks.items(value, field)
    for index, hook in enumerate(found):
        if not isinstance(hook, Exec | Webhook):
            problem = f"expected an Exec or a Webhook, got {checks.shown(hook)}"
            raise SpecError(f"{field}[{index}]", problem)
    return tuple(found)
