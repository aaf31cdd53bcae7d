"""Options about the attributes of a service's processes. Pure."""

from __future__ import annotations

from attrs import define, field

from trio_supervisor.application import checks, process_checks
from trio_supervisor.application.cgroup_options import CgroupOptions
from trio_supervisor.application.fields import checked_later, option
from trio_supervisor.application.process_checks import Limits


@define(
    eq=False,
    repr=False,
    init=False,
    slots=False,
    kw_only=True,
    on_setattr=[],
    field_transformer=checked_later,
)
class ProcessOptions(CgroupOptions):
    """Options that `Service` and `Command` share, those of their processes included.

    They apply to each worker before it runs any code of its own, to the processes that
    it starts, and to those of its ``pre_stop`` and of its probes.
    """

    user: str | int | None = field(
        default=None,
        converter=process_checks.owner_or_none,
        metadata=option(
            "User that a worker runs as, by name or number, with that user's groups; "
            "`HOME`, `USER`, `LOGNAME` and `SHELL` are set accordingly. Needs a "
            "controller that runs as root. `None`: the controller's."
        ),
    )
    group: str | int | None = field(
        default=None,
        converter=process_checks.owner_or_none,
        metadata=option(
            "Primary group, by name or number. `None`: that of `user`, else the "
            "controller's."
        ),
    )
    supplementary_groups: tuple[str | int, ...] | None = field(
        default=None,
        converter=process_checks.owners_or_none,
        metadata=option(
            "Further groups, by name or number, in addition to those of `user`, else "
            "to the controller's."
        ),
    )
    stdin: str | None = field(
        default=None,
        converter=checks.path_or_none,
        metadata=option(
            "File that is opened as the standard input of each process; `None`: it is "
            "empty (/dev/null), or the terminal with `tty`."
        ),
    )
    umask: int | None = field(
        default=None,
        converter=process_checks.umask_or_none,
        metadata=option(
            "Permissions that files which a worker creates do not get: a number such "
            'as `0o027`, or its octal digits as a string, `"027"`. `None` inherits the '
            "controller's."
        ),
    )
    nice: int | None = field(
        default=None,
        converter=checks.integer_or_none,
        metadata=option(
            "Scheduling priority (niceness) of a worker and of all processes that it "
            "starts; a lower value means more processor time. A value below that of "
            "the controller needs CAP_SYS_NICE, or RLIMIT_NICE of at least 20 minus "
            "the value. `None` inherits the controller's.",
            least=-20,
            most=19,
        ),
    )
    ionice: str | None = field(
        default=None,
        converter=process_checks.ionice_or_none,
        metadata=option(
            'I/O scheduling class, ionice(1): `"idle"`, `"best-effort"` or '
            '`"realtime"`; the last two with a level from 0 (first served) to 7, such '
            'as `"best-effort:6"`; without one, 4. `"realtime"` needs CAP_SYS_NICE. '
            "`None` inherits the controller's."
        ),
    )
    cpu_affinity: tuple[int, ...] | None = field(
        default=None,
        converter=process_checks.cpus_or_none,
        metadata=option(
            "Numbers of the CPUs that a worker may run on, such as `[0, 1]`. `None` "
            "inherits the controller's."
        ),
    )
    oom_score_adj: int | None = field(
        default=None,
        converter=checks.integer_or_none,
        metadata=option(
            "How much earlier (1000) or later (-1000: never) than others the kernel "
            "kills a worker when memory runs out, proc_pid_oom_score_adj(5). A value "
            "below that of the controller needs CAP_SYS_RESOURCE. `None` inherits the "
            "controller's.",
            least=-1000,
            most=1000,
        ),
    )
    limits: Limits = field(
        default=None,
        converter=process_checks.limits,
        metadata=option(
            'Resource limits by name, getrlimit(2), such as `{"nofile": 65536, '
            '"core": "unlimited"}`: a number, `"unlimited"`, or a list of two, the '
            "soft and the hard limit; one value sets both. A hard limit above that of "
            "the controller needs CAP_SYS_RESOURCE. Names: "
            f"{', '.join(f'`{name}`' for name in process_checks.RESOURCES)}."
        ),
    )
    no_new_privileges: bool = field(
        default=False,
        converter=checks.flag,
        metadata=option(
            "Whether programs that a worker executes gain no privileges: neither from "
            "set-user-ID bits, as of sudo, nor from file capabilities "
            "(PR_SET_NO_NEW_PRIVS)."
        ),
    )
    private_tmp: bool = field(
        default=False,
        converter=checks.flag,
        metadata=option(
            "Whether each process has an empty `/tmp` and `/var/tmp` of its own, in "
            "memory, which go with it. Needs CAP_SYS_ADMIN, which root has unless it "
            "is in a container. Linux only."
        ),
    )
