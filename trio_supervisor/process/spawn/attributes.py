"""Give a new process its attributes: priority, limits, CPUs, umask …

The controller sets what can be set from outside, by process id, while the new process
waits for permission to run. The rest the process sets itself: see `exec_wrapper`.
"""

from __future__ import annotations

import errno
import os
import pickle
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from attrs import evolve, field, frozen

from trio_supervisor.application import AnyService
from trio_supervisor.application.process_checks import UNLIMITED, Limit
from trio_supervisor.process.cgroups.leaf import Leaf
from trio_supervisor.process.groups import IS_LINUX
from trio_supervisor.process.identity import Identity, find_identity
from trio_supervisor.process.spawn.refused import AttributeRefusedError
from trio_supervisor.process.threads import run_in_thread

_Settings: TypeAlias = Iterator[tuple[str, Callable[[int], object], str]]
# Classes of ioprio_set(2) as psutil numbers them, with their default levels.
_FROM_OUTSIDE: Final = (
    *("cgroup", "nice", "ionice", "cpu_affinity", "oom_score_adj", "limits"),
)
_MOST_CPUS: Final = 8192  # CONFIG_NR_CPUS
_IO_CLASSES: Final = {"realtime": (1, 4), "best-effort": (2, 4), "idle": (3, 0)}


@frozen(kw_only=True)
class ProcessAttributes:
    """Attributes of a service's processes; None: those of the controller."""

    user: str | int | None = None
    group: str | int | None = None
    supplementary_groups: tuple[str | int, ...] | None = None
    umask: int | None = None
    nice: int | None = None
    ionice: str | None = None
    cpu_affinity: tuple[int, ...] | None = None
    oom_score_adj: int | None = None
    limits: Mapping[str, tuple[Limit, Limit]] = field(factory=dict)
    no_new_privileges: bool = False
    private_tmp: bool = False
    cgroup: Leaf | None = None
    """Where its limits are set, made for one process."""
    variables: frozenset[str] = frozenset()
    """Names of environment variables that the service itself declares."""

    @classmethod
    def of(cls, service: AnyService) -> ProcessAttributes:
        """Return the attributes that *service* declares."""
        return cls(
            user=service.user,
            group=service.group,
            supplementary_groups=service.supplementary_groups,
            umask=service.umask,
            nice=service.nice,
            ionice=service.ionice,
            cpu_affinity=service.cpu_affinity,
            oom_score_adj=service.oom_score_adj,
            limits=service.limits,
            no_new_privileges=service.no_new_privileges,
            private_tmp=service.private_tmp,
            variables=frozenset(service.environment),
        )

    @property
    def changes_identity(self) -> bool:
        """Whether a user or groups are declared."""
        declared = (self.user, self.group, self.supplementary_groups)
        return declared != (None, None, None)

    async def identity(self) -> Identity | None:
        """Return the user and groups of the process; None: those of this process.

        Raises:
            AttributeRefusedError: a user or a group is unknown.
        """
        return await run_in_thread(self.find) if self.changes_identity else None

    def find(self) -> Identity | None:
        """Do the same; it may take a while if the users are on another machine."""
        found = find_identity(self.user, self.group, self.supplementary_groups)
        return None if found is None or found.is_ours else found

    @property
    def prepare(self) -> Callable[[int], None] | None:
        """What to call with the process id before it runs; None: nothing."""
        return self.set_from_outside if any(self._from_outside()) else None

    def own(self, identity: Identity | None = None) -> str:
        """Return what the process sets itself, for `exec_wrapper.take_settings`."""
        words = []
        if self.umask is not None:
            words.append(f"umask={int(self.umask)}")
        if self.private_tmp:
            words.append("private_tmp=1")
        if self.no_new_privileges:
            words.append("no_new_privileges=1")
        if identity is not None:  # last: afterwards it may read fewer files
            words.append(identity.setting)
        return " ".join(words)

    def environment(
        self, environment: Mapping[str, str], identity: Identity | None
    ) -> dict[str, str]:
        """Return *environment* with the variables that describe *identity*."""
        variables = {} if identity is None else identity.variables
        return {
            **environment,
            **{k: v for k, v in variables.items() if k not in self.variables},
        }

    def set_from_outside(self, process_id: int) -> None:
        """Set what can be set by process id; the process must have one thread.

        Raises:
            AttributeRefusedError: the system refuses one.
        """
        for option, set_value, shown in self._from_outside():
            try:
                set_value(process_id)
            except ProcessLookupError:
                return  # it was killed, which is noticed soon
            except (OSError, ValueError) as exc:
                if isinstance(exc, FileNotFoundError):
                    return  # its directory in /proc: it has exited
                reason = getattr(exc, "strerror", None) or str(exc)
                reason += self._explanation(option, exc)
                raise AttributeRefusedError(
                    option, f"{option}={shown}", reason
                ) from None

    def forked_preparation(
        self, identity: Identity | None
    ) -> Callable[[int], bytes | None] | None:
        """Return what sets them for a forked process; None: there is nothing to set."""
        return self.prepare if identity is None else self.set_for_other_user

    def set_for_other_user(self, process_id: int) -> bytes | None:
        """Set what this process may set for one of another user; return the rest.

        Root without CAP_SYS_NICE or CAP_SYS_RESOURCE, as in a container, may not; the
        process itself may do so, unless that needs a privilege.

        Returns:
            Pickled attributes for the process to set itself; None: nothing.
        """
        rest: dict[str, object] = {}
        for name in _FROM_OUTSIDE:
            value = getattr(self, name)
            try:
                evolve(NO_ATTRIBUTES, **{name: value}).set_from_outside(process_id)
            except AttributeRefusedError:
                rest[name] = value
        return pickle.dumps(ProcessAttributes(**rest)) if rest else None  # type: ignore[arg-type]

    def _from_outside(self) -> _Settings:
        """Yield option, function that sets it, and its value as text."""
        if (leaf := self.cgroup) is not None:
            yield "cgroup", leaf.add, str(leaf.path)
        if (nice := self.nice) is not None:
            yield (
                "nice",
                lambda pid: os.setpriority(os.PRIO_PROCESS, pid, nice),
                str(nice),
            )
        if (ionice := self.ionice) is not None:
            yield "ionice", lambda pid: _set_io_priority(pid, ionice), repr(ionice)
        if (cpus := self.cpu_affinity) is not None:
            yield "cpu_affinity", lambda pid: _set_cpus(pid, cpus), str(list(cpus))
        if (score := self.oom_score_adj) is not None:
            yield "oom_score_adj", lambda pid: _set_oom_score(pid, score), str(score)
        for name, (soft, hard) in self.limits.items():
            shown = str(soft) if soft == hard else f"({soft}, {hard})"
            pair = _number(soft), _number(hard)
            yield f"limits[{name!r}]", _limit_setter(name, pair), shown

    def _explanation(self, option: str, exc: Exception) -> str:
        """Return what the option needs, or what there is, as text after the reason."""
        if option == "cpu_affinity":
            return f" (available: {shown_cpus(available_cpus())})"
        if option == "cgroup":
            return ""
        if getattr(exc, "errno", None) not in (errno.EPERM, errno.EACCES):
            return ""
        if option.startswith("limits"):
            return _hard_limit_text(option.split("'")[1])
        needed = {"nice": "CAP_SYS_NICE", "ionice": "CAP_SYS_NICE"}
        return f" (needs {needed.get(option, 'CAP_SYS_RESOURCE')})"


NO_ATTRIBUTES: Final = ProcessAttributes()
"""Those of a process that inherits all of the controller's."""


def _set_io_priority(process_id: int, value: str) -> None:
    import psutil  # slow to import, and only needed for this option

    name, _, level = value.partition(":")
    number, default = _IO_CLASSES[name]
    try:
        psutil.Process(process_id).ionice(number, int(level) if level else default)
    except psutil.NoSuchProcess:
        raise ProcessLookupError from None
    except psutil.AccessDenied as exc:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM)) from exc
    except AttributeError:  # another system than Linux
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None


def _set_cpus(process_id: int, cpus: tuple[int, ...]) -> None:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    os.sched_setaffinity(process_id, cpus)


def _set_oom_score(process_id: int, score: int) -> None:
    if not IS_LINUX:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    with open(f"/proc/{process_id}/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(score))


def _number(limit: Limit) -> int:
    return resource.RLIM_INFINITY if limit == UNLIMITED else int(limit)


def _limit_setter(name: str, pair: tuple[int, int]) -> Callable[[int], object]:
    number = getattr(resource, f"RLIMIT_{name.upper()}", None)

    def set_limit(process_id: int) -> None:
        if number is None or sys.platform != "linux":
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        resource.prlimit(process_id, number, pair)

    return set_limit


def _hard_limit_text(name: str) -> str:
    _, hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))
    text = UNLIMITED if hard == resource.RLIM_INFINITY else str(hard)
    found = f" (the controller's hard limit is {text}; more needs CAP_SYS_RESOURCE"
    if name == "nofile":
        found += ", and at most fs.nr_open is possible"
    return f"{found})"


def is_raised(name: str, hard: Limit) -> bool:
    """Return whether *hard* is above the hard limit of this process."""
    number = getattr(resource, f"RLIMIT_{name.upper()}", None)
    if number is None:
        return True
    _, ours = resource.getrlimit(number)
    if ours == resource.RLIM_INFINITY:
        return False
    return hard == UNLIMITED or int(hard) > ours


def available_cpus() -> set[int]:
    """Return the CPUs that the kernel lets this process choose from.

    It tries in the calling thread, whose CPUs it restores: a CPU set of cgroup or
    container may be smaller than what is online.
    """
    if sys.platform != "linux":
        return set()
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, range(_MOST_CPUS))
        return set(os.sched_getaffinity(0))
    except OSError:
        return set(before)
    finally:
        os.sched_setaffinity(0, before)


def shown_cpus(cpus: set[int]) -> str:
    """Return CPU numbers as taskset(1) shows them, such as ``0-3,6``."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and parts[-1][-1] == cpu - 1:
            parts[-1] = [parts[-1][0], cpu]
        else:
            parts.append([cpu])
    return ",".join("-".join(map(str, part)) for part in parts)
