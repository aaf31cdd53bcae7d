"""Resolve the user and the groups that a service's processes run as."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from attrs import field, frozen

from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.process.spawn.refused import AttributeRefusedError

_NO_HOME: Final = "/"
_NO_SHELL: Final = "/bin/sh"


@frozen(kw_only=True)
class Identity:
    """User and groups of a process."""

    user: int
    group: int
    groups: tuple[int, ...]
    """Supplementary groups, in ascending order."""
    name: str = field(eq=False)
    """Name of the user for messages."""
    variables: dict[str, str] = field(eq=False)
    """Variables that describe the user: ``HOME``, ``USER``, ``LOGNAME``, ``SHELL``."""

    @property
    def setting(self) -> str:
        """The setting of `exec_wrapper.take_settings`."""
        return f"user={self.user}:{self.group}:{','.join(map(str, self.groups))}"

    @property
    def numbers(self) -> tuple[int, int, tuple[int, ...]]:
        """User, group and supplementary groups."""
        return self.user, self.group, self.groups

    @property
    def is_ours(self) -> bool:
        """Whether this process has the same user and groups."""
        groups = {*os.getgroups(), os.getegid()}
        return (
            (self.user, self.group) == (os.geteuid(), os.getegid())
            and os.getuid() == os.geteuid()
            and {*self.groups, self.group} == groups
        )


def find_identity(
    user: str | int | None,
    group: str | int | None,
    supplementary_groups: Sequence[str | int] | None,
) -> Identity | None:
    """Return the identity that these options declare; None: that of this process.

    It asks the system's databases, which may be on another machine.

    Raises:
        AttributeRefusedError: a user or a group is unknown.
    """
    if user is None and group is None and supplementary_groups is None:
        return None
    if sys.platform != "linux":
        option = "group" if user is None else "user"
        raise AttributeRefusedError(option, option, "this needs Linux")
    entry = _entry(user)
    more = {
        _group(f"supplementary_groups[{index}]", each)
        for index, each in enumerate(supplementary_groups or ())
    }
    if entry is None and user is not None:
        return _without_entry(user, group, more)
    if entry is None:
        number = os.getegid() if group is None else _group("group", group)
        return Identity(
            user=os.geteuid(),
            group=number,
            groups=tuple(sorted({*os.getgroups(), number} | more)),
            name=str(os.geteuid()),
            variables={},
        )
    number = entry.pw_gid if group is None else _group("group", group)
    return Identity(
        user=entry.pw_uid,
        group=number,
        groups=tuple(sorted({*os.getgrouplist(entry.pw_name, number)} | more)),
        name=repr(entry.pw_name),
        variables=_variables(entry.pw_name, entry.pw_dir, entry.pw_shell),
    )


def _without_entry(
    user: str | int, group: str | int | None, more: set[int]
) -> Identity:
    """Return the identity of a user id without an entry in passwd."""
    if group is None:
        reason = "this user has no entry in passwd; set group as well"
        raise AttributeRefusedError("user", f"user={user}", reason)
    number = _group("group", group)
    return Identity(
        user=int(user),
        group=number,
        groups=tuple(sorted(more | {number})),
        name=str(user),
        variables=_variables(str(user), _NO_HOME, _NO_SHELL),
    )


def share_pipes(descriptors: Iterable[int], identity: Identity | None) -> None:
    """Let *identity* open its standard output again, as by /dev/stdout.

    The kernel checks the owner of a pipe or terminal then, unlike for an inherited
    descriptor.
    """
    if identity is None:
        return
    for descriptor in set(descriptors):
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode) or os.isatty(descriptor):
            with suppress(OSError):
                os.fchown(descriptor, identity.user, -1)


def _entry(user: str | int | None) -> pwd.struct_passwd | None:
    try:
        if isinstance(user, int):
            return pwd.getpwuid(user)
        return None if user is None else pwd.getpwnam(user)
    except KeyError:
        if isinstance(user, int):
            return None
    names = [entry.pw_name for entry in pwd.getpwall()]
    raise AttributeRefusedError(
        "user", f"user={user!r}", f"unknown user{did_you_mean(user, names)}"
    )


def _group(option: str, group: str | int) -> int:
    if isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        names = [entry.gr_name for entry in grp.getgrall()]
    reason = f"unknown group{did_you_mean(group, names)}"
    raise AttributeRefusedError(option, f"{option}={group!r}", reason)


def _variables(name: str, home: str, shell: str) -> dict[str, str]:
    """Return what login(1) sets, as systemd does for ``User=``."""
    return {
        "HOME": home or _NO_HOME,
        "USER": name,
        "LOGNAME": name,
        "SHELL": shell or _NO_SHELL,
    }
