"""Refuse to start what cannot be started, before anything is stopped or started."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from trio_supervisor.application import Application, Service
from trio_supervisor.application.places import located
from trio_supervisor.application.requirements import requirements_of
from trio_supervisor.errors import SpecError
from trio_supervisor.process.cgroups.limits import CgroupLimits
from trio_supervisor.process.cgroups.tree import CgroupTree
from trio_supervisor.process.preflight import problems_of, without_removed
from trio_supervisor.process.spawn.attribute_trial import refused_attributes
from trio_supervisor.process.spawn.attributes import ProcessAttributes
from trio_supervisor.process.spawn.identity_trial import refused_identity
from trio_supervisor.process.threads import run_in_thread


async def check_startable(
    application: Application,
    names: Collection[str],
    environment: Mapping[str, str],
    *,
    socket_path: str,
    with_sockets: bool = False,
    were_started: bool = False,
) -> None:
    """See that what the services *names* need is there, as far as that is certain.

    Args:
        environment: The controller's.
        socket_path: The supervisor's.
        with_sockets: Whether their sockets are about to be bound, too.
        were_started: Whether they ran before: the directory of a log file that was
            removed since is made again.

    Raises:
        SpecError: something is missing; all of it is listed.
    """
    found = requirements_of(application, names, with_sockets=with_sockets)
    if were_started:
        found = without_removed(found)
    problems = await _priority_problems(application, names)
    problems += await _attribute_problems(application, names, socket_path)
    problems += await run_in_thread(_cgroup_problems, application, names)
    if found:
        # In a thread: a path may be on a disk, or a network, that is slow.
        problems += await run_in_thread(problems_of, found, environment)
    if problems:
        raise SpecError.of([located(each, application.places) for each in problems])


async def _attribute_problems(
    application: Application, names: Collection[str], socket_path: str
) -> list[SpecError]:
    """Return an error for each attribute of a process that the system refuses."""
    problems = []
    for service in application.services:
        if service.name not in names:
            continue
        attributes = ProcessAttributes.of(service)
        connects_to = socket_path if isinstance(service, Service) else None
        found = await refused_attributes(attributes, socket_path=connects_to)
        identity = await refused_identity(attributes, socket_path=connects_to)
        path = application.path(service.name)
        problems += [
            SpecError(f"{path}.{refused.option}", f"{service.name}: {refused}")
            for refused in (*found, *([] if identity is None else [identity]))
        ]
    return problems


def _cgroup_problems(
    application: Application, names: Collection[str]
) -> list[SpecError]:
    """Return an error for each service whose limits the system refuses."""
    problems = []
    for service in application.services:
        limits = CgroupLimits.of(service)
        if service.name in names and (refused := CgroupTree().refusal(limits)):
            path = f"{application.path(service.name)}.{refused.option}"
            problems.append(SpecError(path, f"{service.name}: {refused}"))
    return problems


async def _priority_problems(
    application: Application, names: Collection[str]
) -> list[SpecError]:
    """Return an error for each service whose *nice* the controller may not set."""
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    return [
        SpecError(
            f"{application.path(service.name)}.nice",
            f"{service.name}: {service.nice} is below the controller's {ours}, which "
            f"needs CAP_SYS_NICE, or RLIMIT_NICE of at least {20 - service.nice}",
        )
        for service in application.services
        if service.name in names
        and service.nice is not None
        and service.nice < ours
        and not await run_in_thread(_may_have, service.nice, ours)
    ]


def _may_have(nice: int, ours: int) -> bool:
    """Return whether the kernel permits the priority *nice*: try it in this thread."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except PermissionError:
        return False
    os.setpriority(os.PRIO_PROCESS, 0, ours)
    return True
