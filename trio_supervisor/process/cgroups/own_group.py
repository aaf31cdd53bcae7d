"""Find the cgroup (version 2) that this process may divide among its workers."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

ROOT: Final = Path("/")
OWN_LEAF: Final = "supervisor"
"""Child that the controller and its helpers move to: a cgroup that has processes
cannot give controllers to its children."""

_NEEDS: Final = "limits need cgroup v2"
_DELEGATE: Final = "run the controller under systemd with Delegate=yes"


class CgroupUnavailableError(Exception):
    """This process has no cgroup that it may divide; the message says why."""


@frozen(kw_only=True)
class OwnGroup:
    """The cgroup that this process may divide."""

    base: Path
    """Its directory; that of each worker is in there."""
    is_in_leaf: bool
    """Whether this process is in `OWN_LEAF` already (DelegateSubgroup=supervisor)."""


def find_own_group(root: Path = ROOT) -> OwnGroup:
    """Return the cgroup of this process, or the one above its leaf.

    Args:
        root: Directory that holds ``proc`` and the mount points.

    Raises:
        CgroupUnavailableError: there is none, or it is the root of the machine.
    """
    if sys.platform != "linux":
        raise CgroupUnavailableError("limits need Linux with cgroup v2")
    name, mount = _own_name(root), next(_mounts(root), None)
    if name is None or mount is None:
        raise CgroupUnavailableError(f"{_NEEDS}, which is not mounted on this machine")
    directory, top = mount
    relative = os.path.relpath(name, top)
    if name.startswith("/..") or relative.startswith(".."):
        raise CgroupUnavailableError(
            f"the cgroup of the controller, {name}, is not visible under {directory}"
        )
    own = root / directory.lstrip("/") / relative
    if own.name == OWN_LEAF and _can_be_divided(own.parent):
        return OwnGroup(base=own.parent, is_in_leaf=True)
    if not _can_be_divided(own):
        raise CgroupUnavailableError(
            f"the controller runs in the root cgroup, which is not its own; {_DELEGATE}"
        )
    return OwnGroup(base=own, is_in_leaf=False)


def version_problem(controllers: Iterable[str], root: Path = ROOT) -> str:
    """Return which of *controllers* are in cgroup version 1; empty: none is."""
    found = sorted({*controllers} & _first_version(root))
    if not found:
        return ""
    return (
        f"{_NEEDS}, and this machine has the {_words(found)} in cgroup v1; boot it "
        f"with systemd.unified_cgroup_hierarchy=1"
    )


def controller_problem(missing: list[str], base: Path) -> str:
    """Return that the controllers *missing* are not available in *base*."""
    return (
        f"the {_words(missing)} is not available in the cgroup {base}; "
        f"{_DELEGATE}, or enable it in cgroup.subtree_control of the cgroup above"
    )


def access_problem(base: Path, root: Path = ROOT) -> str:
    """Return why this process may not divide *base*; empty: it may."""
    files = (base, base / "cgroup.procs", base / "cgroup.subtree_control")
    if all(os.access(each, os.W_OK, effective_ids=_HAS_EFFECTIVE) for each in files):
        if os.geteuid() == 0 and not _was_delegated(base, root):
            # systemd may take limits away again, as in a daemon-reload.
            return f"systemd has not delegated the cgroup {base}; {_DELEGATE}"
        return ""
    if os.statvfs(base).f_flag & os.ST_RDONLY:
        return (
            f"the cgroup {base} is mounted read-only (ProtectControlGroups= of "
            f"systemd, or a container without write access to its cgroup)"
        )
    return (
        f"the cgroup {base} is not delegated to user {os.geteuid()}; {_DELEGATE}, or "
        f"with systemd-run --user --scope -p Delegate=yes"
    )


_HAS_EFFECTIVE: Final = os.access in os.supports_effective_ids


def _was_delegated(base: Path, root: Path) -> bool:
    """Return whether systemd has delegated *base*, or does not run here.

    The access rights tell that to any user but root. Source: CGROUP_DELEGATION.md.
    """
    if not (root / "run/systemd/system").is_dir():  # sd_booted(3)
        return True
    return any(
        _has_mark(directory, name)
        for directory in (base, *base.parents)
        for name in ("trusted.delegate", "user.delegate")
    )


def _has_mark(directory: Path, name: str) -> bool:
    try:
        return os.getxattr(directory, name) == b"1"
    except OSError:
        return False


def _can_be_divided(directory: Path) -> bool:
    """Return whether it is a cgroup, and not the root of the machine."""
    return (directory / "cgroup.events").exists()


def _own_name(root: Path) -> str | None:
    for line in _lines(root / "proc/self/cgroup"):
        if line.startswith("0::"):
            return line[3:]
    return None


def _first_version(root: Path) -> set[str]:
    """Return the controllers that a hierarchy of version 1 has."""
    lines = (line.split(":", 2) for line in _lines(root / "proc/self/cgroup"))
    return {name for line in lines for name in line[1].split(",") if line[0] != "0"}


def _mounts(root: Path) -> Iterator[tuple[str, str]]:
    """Yield each mount point of cgroup v2, and the cgroup that is mounted there.

    Source: proc_pid_mountinfo(5).
    """
    for line in _lines(root / "proc/self/mountinfo"):
        fields, _, rest = line.partition(" - ")
        if rest.split()[:1] == ["cgroup2"]:
            _, _, _, top, directory, *_ = fields.split(" ")
            yield _unescaped(directory), _unescaped(top)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []


def _words(names: list[str]) -> str:
    return f"{' and '.join(names)} controller{'s' * (len(names) != 1)}"
