"""Test which cgroup is found, in a directory that stands for the root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kits.cgroups import FakeCgroups, cgroups
from trio_supervisor.process.cgroups.own_group import (
    CgroupUnavailableError,
    access_problem,
    controller_problem,
    find_own_group,
    version_problem,
)
from trio_supervisor.process.groups import IS_LINUX

__all__ = ["cgroups"]
pytestmark = pytest.mark.skipif(not IS_LINUX, reason="Linux only")

VERSION_1 = "4:memory:/\n1:cpu,cpuacct:/\n"


def problem_of(cgroups: FakeCgroups) -> str:
    with pytest.raises(CgroupUnavailableError) as caught:
        find_own_group(cgroups.root)
    return str(caught.value)


def test_own_cgroup_is_divided(cgroups: FakeCgroups) -> None:
    own = find_own_group(cgroups.root)
    assert (own.base, own.is_in_leaf) == (cgroups.base, False)


def test_delegated_subgroup_is_the_leaf(cgroups: FakeCgroups) -> None:
    """As with DelegateSubgroup=supervisor of systemd 254."""
    cgroups.make("app.service/supervisor")
    cgroups.say(cgroup=f"{VERSION_1}0::/app.service/supervisor\n")
    own = find_own_group(cgroups.root)
    assert (own.base, own.is_in_leaf) == (cgroups.base, True)


def test_mount_of_a_part_and_escaped_names(cgroups: FakeCgroups) -> None:
    """As in a container that sees the host's name of its cgroup."""
    cgroups.say(
        cgroup="0::/docker/a b/app.service\n",
        mountinfo=r"30 22 0:26 /docker/a\040b /sys/fs/cgroup rw - cgroup2 cgroup rw",
    )
    assert find_own_group(cgroups.root).base == cgroups.base


@pytest.mark.parametrize("name", ["/", "/supervisor"])
def test_root_cgroup_is_not_divided(cgroups: FakeCgroups, name: str) -> None:
    (cgroups.mount / "supervisor").mkdir()
    cgroups.say(cgroup=f"0::{name}\n")
    assert "runs in the root cgroup" in problem_of(cgroups)


def test_name_outside_of_the_mount_is_refused(cgroups: FakeCgroups) -> None:
    cgroups.say(cgroup="0::/../other\n")
    assert "is not visible under /sys/fs/cgroup" in problem_of(cgroups)


def test_cgroup_v1_alone_is_refused_with_what_is_needed(cgroups: FakeCgroups) -> None:
    cgroups.say(cgroup=VERSION_1, mountinfo="")
    assert problem_of(cgroups) == (
        "limits need cgroup v2, which is not mounted on this machine"
    )


def test_controller_of_cgroup_v1_is_named(cgroups: FakeCgroups) -> None:
    cgroups.say(cgroup=f"{VERSION_1}0::/app.service\n")
    problem = version_problem(["memory", "pids"], cgroups.root)
    assert problem == (
        "limits need cgroup v2, and this machine has the memory controller in cgroup "
        "v1; boot it with systemd.unified_cgroup_hierarchy=1"
    )
    assert version_problem(["pids"], cgroups.root) == ""
    other = controller_problem(["pids"], cgroups.base)
    assert other.startswith("the pids controller is not available in the cgroup ")


def test_cgroup_without_write_access_is_not_delegated(
    cgroups: FakeCgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert access_problem(cgroups.base) == ""
    assert access_problem(cgroups.base, cgroups.root) == ""
    monkeypatch.setattr(os, "access", lambda path, mode, **_: Path(path).is_dir())
    assert "is not delegated to user" in access_problem(cgroups.base)


@pytest.mark.parametrize("mark", ["trusted.delegate", "user.delegate"])
def test_root_needs_the_delegation_of_systemd(
    cgroups: FakeCgroups, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    """Root may write there anyway, but systemd may take limits away again."""
    marks: dict[tuple[Path, str], bytes] = {}

    def getxattr(path: Path, name: str) -> bytes:
        if (path, name) not in marks:
            raise OSError(61, "No data available")
        return marks[path, name]

    monkeypatch.setattr(os, "getxattr", getxattr)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "access", lambda *_, **__: True)
    assert access_problem(cgroups.base, cgroups.root) == ""
    (cgroups.root / "run/systemd/system").mkdir(parents=True)
    assert access_problem(cgroups.base, cgroups.root) == (
        f"systemd has not delegated the cgroup {cgroups.base}; run the controller "
        f"under systemd with Delegate=yes"
    )
    marks[cgroups.base.parent, mark] = b"1"
    assert access_problem(cgroups.base, cgroups.root) == ""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    marks.clear()
    assert access_problem(cgroups.base, cgroups.root) == ""
