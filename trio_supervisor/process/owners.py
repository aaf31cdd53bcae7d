"""Owners and groups of files, by name or number."""

from __future__ import annotations

import errno
import grp
import os
import pwd
from collections.abc import Callable
from typing import Final

UNCHANGED: Final = -1
"""What chown(2) takes for "leave it as it is"."""


def user_number(user: str | int | None) -> int:
    """Return the number of *user*; `UNCHANGED` for None.

    Raises:
        OSError: there is no user of that name; `errno.EINVAL`.
    """
    return _number("user", user, lambda name: pwd.getpwnam(name).pw_uid)


def group_number(group: str | int | None) -> int:
    """Return the number of *group*; `UNCHANGED` for None.

    Raises:
        OSError: there is no group of that name; `errno.EINVAL`.
    """
    return _number("group", group, lambda name: grp.getgrnam(name).gr_gid)


def _number(kind: str, owner: str | int | None, number_of: Callable[[str], int]) -> int:
    if owner is None or isinstance(owner, int):
        return UNCHANGED if owner is None else owner
    try:
        return number_of(owner)
    except KeyError:
        raise OSError(errno.EINVAL, f"there is no {kind} {owner!r}") from None


def give_to(path: str, user: str | int | None, group: str | int | None) -> None:
    """Make *user* and *group* the owners of the file at *path*, never of a link's.

    Raises:
        OSError: there is no such user or group; or `errno.EPERM`: this process may not
            give files to them.
    """
    numbers = user_number(user), group_number(group)
    if numbers == (UNCHANGED, UNCHANGED):
        return
    try:
        os.chown(path, *numbers, follow_symlinks=False)
    except PermissionError as exc:
        whom = " and ".join(
            f"{what} {value!r}"
            for what, value in (("user", user), ("group", group))
            if value is not None
        )
        raise OSError(
            errno.EPERM,
            f"not permitted to give it to {whom}; only root may choose the user, and "
            f"only its members a group",
        ) from exc
