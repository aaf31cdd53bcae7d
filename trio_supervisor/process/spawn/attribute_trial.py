"""Find out before a start which attributes the system would refuse."""

from __future__ import annotations

import os
from collections.abc import Iterator

from attrs import evolve

from trio_supervisor.process.groups import IS_LINUX
from trio_supervisor.process.spawn.attributes import (
    ProcessAttributes,
    available_cpus,
    is_raised,
    shown_cpus,
)
from trio_supervisor.process.spawn.exec import spawn_exec
from trio_supervisor.process.spawn.exec_wrapper import TEMPORARY
from trio_supervisor.process.spawn.refused import AttributeRefusedError
from trio_supervisor.process.threads import run_in_thread


class _AcceptedError(Exception):
    """The system has accepted all attributes."""


async def refused_attributes(
    attributes: ProcessAttributes, *, socket_path: str | None = None
) -> list[AttributeRefusedError]:
    """Return what the system refuses of *attributes*, except *nice*.

    What needs a privilege is tried on a process of its own, which runs nothing: the
    limits of this process could not be restored.

    Args:
        socket_path: Of the supervisor, if the process has to connect to it.
    """
    found = []
    if attributes.cpu_affinity is not None and IS_LINUX:
        problem = await run_in_thread(_missing_cpus, attributes.cpu_affinity)
        if problem:
            shown = f"cpu_affinity={list(attributes.cpu_affinity)}"
            found.append(AttributeRefusedError("cpu_affinity", shown, problem))
    if attributes.private_tmp and socket_path is not None:
        hidden = [each for each in TEMPORARY if socket_path.startswith(f"{each}/")]
        if hidden:
            problem = (
                f"it hides the socket {socket_path} from the worker; choose another "
                f"place than {hidden[0]} with --socket"
            )
            shown = "private_tmp=True"
            found.append(AttributeRefusedError("private_tmp", shown, problem))
    tried = [await _refusal(uncertain) for uncertain in _uncertain(attributes)]
    return [*found, *(refused for refused in tried if refused is not None)]


def _uncertain(attributes: ProcessAttributes) -> Iterator[ProcessAttributes]:
    """Yield each attribute that the system may refuse, alone."""
    nothing = ProcessAttributes()
    if attributes.ionice is not None and attributes.ionice.startswith("realtime"):
        yield evolve(nothing, ionice=attributes.ionice)
    score = attributes.oom_score_adj
    if score is not None and score < _own_oom_score():
        yield evolve(nothing, oom_score_adj=score)
    if attributes.private_tmp:
        yield evolve(nothing, private_tmp=True)
    for name, pair in attributes.limits.items():
        if is_raised(name, pair[1]) or name == "nofile":  # fs.nr_open
            yield evolve(nothing, limits={name: pair})


async def _refusal(attributes: ProcessAttributes) -> AttributeRefusedError | None:
    """Return the error of a process that gets *attributes*; None: it has them."""

    def prepare(process_id: int) -> None:
        attributes.set_from_outside(process_id)
        if not attributes.own():
            raise _AcceptedError  # ends the process before it executes a program

    try:
        process = await spawn_exec(
            ["true"], environment=os.environ, prepare=prepare, own=attributes.own()
        )
    except AttributeRefusedError as exc:
        return exc
    except (_AcceptedError, OSError):  # the start itself fails, and says why
        return None
    await process.wait()
    process.close()
    return None


def _missing_cpus(wanted: tuple[int, ...]) -> str:
    available = available_cpus()
    missing = set(wanted) - available
    if not missing:
        return ""
    return (
        f"CPU {shown_cpus(missing)} is not available to the controller "
        f"(available: {shown_cpus(available)})"
    )


def _own_oom_score() -> int:
    try:
        with open("/proc/self/oom_score_adj", encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return 1000  # unknown: try
