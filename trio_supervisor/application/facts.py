"""Describe services as plain data, which a reload compares. Pure."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final

from trio_supervisor.application import checks
from trio_supervisor.application.application import Application
from trio_supervisor.application.code_names import TargetName
from trio_supervisor.application.command import Command
from trio_supervisor.application.fields import options_of
from trio_supervisor.application.group import AnyService
from trio_supervisor.application.listen import Listen
from trio_supervisor.application.service import Service
from trio_supervisor.application.timetable import Timetable
from trio_supervisor.application.worker_policy import policy_name
from trio_supervisor.policy.reload import ServiceFacts
from trio_supervisor.policy.strategy import GroupNode

# An object has another address after a reload.
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")


def facts_of(service: AnyService, fingerprint: str = "") -> ServiceFacts:
    """Return what a reload plan needs to know about *service*, as plain data.

    Args:
        fingerprint: Fingerprint of its code in hexadecimal digits; empty if unknown.
    """
    declaration = {
        field.name: _plain(getattr(service, field.name))
        for field in options_of(type(service))
        if field.name not in ("name", "count")
    }
    if isinstance(service, Service) and service.autoscale is not None:
        declaration["autoscale"] = str(service.autoscale)
    return ServiceFacts(
        name=service.name,
        count=service.count,
        declaration=declaration,
        fingerprint=fingerprint,
        overlap=service.overlap,
        is_command=isinstance(service, Command),
    )


def application_facts(application: Application) -> dict[str, object]:
    """Return the options of *application* as a whole, as plain data."""
    return {
        "name": application.name,
        "auto_shutdown": application.auto_shutdown,
        "max_restarts_concurrently": application.max_restarts_concurrently,
        "stop_timeout": application.stop_timeout,
        "immortal_preload": application.immortal_preload,
        "policy": application.policy and str(policy_name(application.policy)),
        "on_event": [type(hook).__name__ for hook in application.on_event],
        "groups": dict(_groups(application.tree())),
    }


def _groups(node: GroupNode, within: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and a description of *node* and of the groups within it."""
    most = "any" if node.intensity is None else node.intensity
    text = f"{node.strategy}, {most} within {node.period:g} s"
    if within:  # the outermost group contains every service
        names = [c.name if isinstance(c, GroupNode) else c for c in node.children]
        text += f": {', '.join(names)}"
    yield within + node.name, text
    for child in node.children:
        if isinstance(child, GroupNode):
            yield from _groups(child, f"{within}{node.name}/")


def _listen_text(listen: Listen) -> str:
    options = [str(listen), f"backlog={listen.backlog}"]
    if listen.kind == "unix":
        options.append(f"mode=0o{listen.mode:03o}")
        options += [
            f"{name}={value}"
            for name, value in (("user", listen.user), ("group", listen.group))
            if value is not None
        ]
    elif listen.reuse_port:
        options.append("reuse_port")
    return " ".join(options)


def _plain(value: object) -> object:
    match value:
        case Mapping():
            return {str(key): _text(item) for key, item in value.items()}
        case frozenset():
            return " ".join(map(str, sorted(value)))
        case tuple():
            return shlex.join(map(_text, value))
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Listen):
        return _listen_text(value)
    if isinstance(value, Timetable):
        return value.described()
    if isinstance(value, signal.Signals):
        return value.name
    if isinstance(value, Enum):
        return str(value.value)
    if callable(value):
        return target_text(value)
    return _ADDRESS.sub("", repr(value))


def target_text(target: Any) -> str:
    """Return the name of a function, as ``module:qualified.name``."""
    if isinstance(target, TargetName):
        return target.text
    if hasattr(target, "__qualname__"):
        return f"{getattr(target, '__module__', '')}:{target.__qualname__}"
    return _ADDRESS.sub("", checks.shown(target))
