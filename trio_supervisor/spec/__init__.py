"""What a user declares: an application, its services, commands and monitors. Pure.

Every mistake in a declaration is a `SpecError` that names the field, raised where the
object is made, before anything starts.
"""

from __future__ import annotations

from trio_supervisor.spec.application import Application, MonitorLike
from trio_supervisor.spec.checks import RESERVED_NAMES, SUPERVISOR_NAME
from trio_supervisor.spec.command import Command
from trio_supervisor.spec.common import FORWARDED, MAX_COUNT, KillMode
from trio_supervisor.spec.facts import facts_of
from trio_supervisor.spec.group import AnyService, Group
from trio_supervisor.spec.listen import Listen
from trio_supervisor.spec.names import MonitorName, TargetName
from trio_supervisor.spec.plain import application_from_plain, application_to_plain
from trio_supervisor.spec.probe import Probe
from trio_supervisor.spec.service import Backend, Service, StartMethod

__all__ = [
    "FORWARDED",
    "MAX_COUNT",
    "RESERVED_NAMES",
    "SUPERVISOR_NAME",
    "AnyService",
    "Application",
    "Backend",
    "Command",
    "Group",
    "KillMode",
    "Listen",
    "MonitorLike",
    "MonitorName",
    "Probe",
    "Service",
    "StartMethod",
    "TargetName",
    "application_from_plain",
    "application_to_plain",
    "facts_of",
]
