"""Look up users and groups, and change the owners of files."""

from __future__ import annotations

import errno
import grp
import os
import pwd
from collections.abc import Callable
from typing import Final

UNCHANGED: Final = -1
"""Value of chown(2) for an owner that is not changed."""


def user_number(user: str | int | None) -> int:
    """Return the uid of *user*; `UNCHANGED` for None.

    Raises:
        OSError: unknown user; `errno.EINVAL`.
    """
    return _number("user", user, lambda name: pwd.getpwnam(name).pw_uid)


def group_number(group: str | int | None) -> int:
    """Return the gid of *group*; `UNCHANGED` for None.

    Raises:
        OSError: unknown group; `errno.EINVAL`.
    """
    return _number("group", group, lambda name: grp.getgrnam(name).gr_gid)


def _number(kind: str, owner: str | int | None, number_of: Callable[[str], int]) -> int:
    if owner is None or isinstance(owner, int):
        return UNCHANGED if owner is None else owner
    try:
        return number_of(owner)
    except KeyError:
        raise OSError(errno.EINVAL, f"unknown {kind} {owner!r}") from None


def give_to(path: str, user: str | int | None, group: str | int | None) -> None:
    """Set the owners of the file at *path*; a symbolic link is not followed.

    Raises:
        OSError: unknown user or group; or `errno.EPERM`: this process is not permitted
            to set them.
    """
    numbers = user_number(user), group_number(group)
    if numbers == (UNCHANGED, UNCHANGED):
        return
    try:
        os.chown(path, *numbers, follow_symlinks=False)
    except PermissionError as exc:
        owners = " and ".join(
            f"{what} {value!r}"
            for what, value in (("user", user), ("group", group))
            if value is not None
        )
        raise OSError(
            errno.EPERM,
            f"not permitted to set the owner to {owners}; only root may change the "
            f"user, and only members of a group may set it",
        ) from exc
