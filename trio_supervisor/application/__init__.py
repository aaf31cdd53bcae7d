"""Declarations: an application with its services, commands and monitors. Pure.

A mistake in a declaration raises `SpecError`, which names the option, when the object
is made: before anything starts.
"""

from __future__ import annotations

from trio_supervisor.application.application import Application, MonitorLike
from trio_supervisor.application.autoscale import MAX_COUNT, Autoscale
from trio_supervisor.application.checks import RESERVED_NAMES, SUPERVISOR_NAME
from trio_supervisor.application.code_names import MonitorName, TargetName
from trio_supervisor.application.command import Command
from trio_supervisor.application.event_hooks import Exec, Webhook
from trio_supervisor.application.facts import facts_of
from trio_supervisor.application.group import AnyService, Group
from trio_supervisor.application.listen import Listen
from trio_supervisor.application.plain import (
    application_from_plain,
    application_to_plain,
)
from trio_supervisor.application.probe import Probe
from trio_supervisor.application.schedule import Schedule
from trio_supervisor.application.service import Backend, Service
from trio_supervisor.application.timetable import Timetable
from trio_supervisor.application.worker_policy import Policy, PolicyWorker, WorkerExit

__all__ = [
    "MAX_COUNT",
    "RESERVED_NAMES",
    "SUPERVISOR_NAME",
    "AnyService",
    "Application",
    "Autoscale",
    "Backend",
    "Command",
    "Exec",
    "Group",
    "Listen",
    "MonitorLike",
    "MonitorName",
    "Policy",
    "PolicyWorker",
    "Probe",
    "Schedule",
    "Service",
    "TargetName",
    "Timetable",
    "Webhook",
    "WorkerExit",
    "application_from_plain",
    "application_to_plain",
    "facts_of",
]
