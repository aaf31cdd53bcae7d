"""Generate the page of all options: a table for each class that has some."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any, Final

import attrs

from trio_supervisor.application import (
    Application,
    Command,
    Group,
    Listen,
    Probe,
    Service,
)
from trio_supervisor.application.autoscale import Autoscale
from trio_supervisor.application.event_hooks import Exec, Webhook
from trio_supervisor.application.fields import (
    OptionField,
    doc_of,
    limits_of,
    options_of,
    unit_of,
)
from trio_supervisor.application.process_options import ProcessOptions
from trio_supervisor.application.timetable import Timetable
from trio_supervisor.policy.restart import Backoff
from trio_supervisor.reference import markdown

_HEAD: Final = ("Option", "Type", "Default", "Unit", "Meaning")

_INTRODUCTION: Final = """\
# Options

Every option of the classes that a service file is made of. An option without a default
is required, and is passed by position; all others are passed by name:

```python
Service("web", serve, count=4, stop_timeout=30)
```

A value that is not valid raises `SpecError` when the object is made; the message names
the option. Durations are numbers of seconds, up to a year. Signals are members of
`signal.Signals` or their names, with or without `SIG`.
"""


def page() -> str:
    """Return docs/reference/options.md."""
    return "\n".join([markdown.GENERATED, _INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    yield from _section(
        "Application", Application, "Everything that one controller runs."
    )
    yield from _section("Group", Group, "Services that are restarted together.")
    yield from _section(
        "Service and Command",
        ProcessOptions,
        "Options that [Service](#service) and [Command](#command) share.",
    )
    yield from _section(
        "Service",
        Service,
        "A named group of identical worker processes that run one Python function. "
        "Has these options and those of [Service and Command](#service-and-command).",
        _differs_from(ProcessOptions),
    )
    yield from _section(
        "Command",
        Command,
        "A named group of identical processes that run any program. Has these options "
        "and those of [Service and Command](#service-and-command); where an option is "
        "in both tables, this one holds.",
        _differs_from(ProcessOptions),
    )
    yield from _section(
        "Listen", Listen, "An address that the controller listens on for a service."
    )
    yield from _section(
        "Probe",
        Probe,
        "A question that the controller asks a command over and over: "
        '`Probe.http("http://HOST:PORT/PATH")` succeeds with a status from 200 to 399, '
        '`Probe.tcp("HOST:PORT")` with a connection, and '
        '`Probe.command(["PROGRAM", "ARGUMENT"])` with exit code 0.',
    )
    yield from _section(
        "Timetable",
        Timetable,
        "When the workers of a service run, instead of all the time: "
        "`schedule=Timetable(every=60)`. [Schedules](../schedules.md) shows how.",
    )
    yield from _section(
        "Autoscale",
        Autoscale,
        "Lets the load decide the number of workers of a service: "
        '`count=Autoscale(maximum=16, metric="requests_active", per_worker=8)`. '
        "[Autoscaling](../metrics.md#autoscaling) shows how.",
    )
    yield from _section(
        "Exec",
        Exec,
        "A program that is run for events: an item of `on_event` of an application. "
        "[Events](../output.md#hooks) shows how.",
    )
    yield from _section("Webhook", Webhook, "An address that events are posted to.")
    yield from _section(
        "Backoff",
        Backoff,
        "Delays between restarts: none before the first, then exponential with full "
        "jitter, which draws each delay evenly from 0 to `min(cap, base * 2**n)`.",
    )


def _section(
    title: str,
    kind: type[Any],
    introduction: str,
    is_shown: Callable[[OptionField], bool] = lambda _: True,
) -> Iterator[str]:
    rows = [_row(field) for field in options_of(kind) if is_shown(field)]
    yield f"## {title}\n"
    yield f"{introduction}\n"
    yield markdown.table(_HEAD, rows)


def _differs_from(kind: type[Any]) -> Callable[[OptionField], bool]:
    shared = {field.name: doc_of(field) for field in options_of(kind)}
    return lambda field: shared.get(field.name) != doc_of(field)


def _row(field: OptionField) -> Sequence[str]:
    return (
        markdown.code(field.name),
        markdown.code(type_text(field)),
        markdown.code(default_text(field)),
        unit_of(field),
        doc_of(field),
    )


def type_text(field: OptionField) -> str:
    """Return the type of an option, or its choices."""
    choices = limits_of(field).get("choices")
    if choices and not str(field.type).startswith("Sequence"):
        return " | ".join(f'"{choice}"' for choice in choices)
    return str(field.type).replace("signal.", "").replace("MonitorLike", "Monitor")


def default_text(field: OptionField) -> str:
    """Return the default of an option; empty: it is required."""
    value: Any = field.default
    match value:
        case attrs.NOTHING:
            return ""
        case signal.Signals():
            return f'"{value.name}"'
        case Enum():
            return f'"{value.value}"'
        case str():
            return f'"{value}"'
        case tuple():
            return repr(list(value))
        case Backoff():
            return "Backoff()"
    return repr(value)
