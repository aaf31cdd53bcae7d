"""Test that user and groups are resolved, and unknown ones named."""

from __future__ import annotations

import grp
import os
import pwd
import stat

import pytest

from trio_supervisor.process.groups import IS_LINUX
from trio_supervisor.process.identity import find_identity, share_pipes
from trio_supervisor.process.spawn.refused import AttributeRefusedError

pytestmark = pytest.mark.skipif(not IS_LINUX, reason="Linux only")
NOBODY = 65534
UNKNOWN = 54321


def test_no_option_is_no_identity() -> None:
    assert find_identity(None, None, None) is None


def test_user_has_its_groups_and_variables() -> None:
    entry = pwd.getpwnam("nobody")
    found = find_identity("nobody", None, None)
    assert found is not None
    assert found == find_identity(entry.pw_uid, None, [])
    groups = sorted(os.getgrouplist("nobody", entry.pw_gid))
    assert (found.user, found.group) == (entry.pw_uid, entry.pw_gid)
    assert found.groups == tuple(groups)
    assert found.setting == f"user={entry.pw_uid}:{entry.pw_gid}:" + ",".join(
        map(str, groups)
    )
    assert found.variables["USER"] == found.variables["LOGNAME"] == "nobody"
    assert found.variables["HOME"] == entry.pw_dir


def test_groups_are_added_to_those_of_the_user() -> None:
    found = find_identity("nobody", "daemon", ["bin", UNKNOWN])
    assert found is not None
    assert found.group == grp.getgrnam("daemon").gr_gid
    assert {found.group, grp.getgrnam("bin").gr_gid, UNKNOWN} <= set(found.groups)


def test_group_alone_keeps_the_user() -> None:
    found = find_identity(None, UNKNOWN, None)
    assert found is not None
    assert (found.user, found.group, found.variables) == (os.geteuid(), UNKNOWN, {})
    assert set(os.getgroups()) <= set(found.groups)


def test_number_without_passwd_entry_needs_a_group() -> None:
    found = find_identity(UNKNOWN, UNKNOWN, None)
    assert found is not None
    assert (found.user, found.groups) == (UNKNOWN, (UNKNOWN,))
    assert found.variables["HOME"] == "/"
    with pytest.raises(AttributeRefusedError) as caught:
        find_identity(UNKNOWN, None, None)
    assert str(caught.value) == (
        f"cannot set user={UNKNOWN}: this user has no entry in passwd; set group as "
        f"well"
    )


@pytest.mark.parametrize(
    ("user", "group", "more", "option", "words"),
    [
        ("nobdy", None, None, "user", "(did you mean 'nobody'?)"),
        ("nobody", "deamon", None, "group", "did you mean 'daemon'?"),
        (None, None, ["bin", "n0ne"], "supplementary_groups[1]", "unknown group"),
    ],
)
def test_unknown_name_is_reported_with_the_nearest(
    user: str | None, group: str | None, more: list[str] | None, option: str, words: str
) -> None:
    with pytest.raises(AttributeRefusedError) as caught:
        find_identity(user, group, more)
    assert caught.value.option == option
    assert words in str(caught.value)


def test_own_user_is_ours() -> None:
    found = find_identity(os.geteuid(), os.getegid(), os.getgroups())
    assert found is None or found.user == os.geteuid()
    alien = find_identity(UNKNOWN, UNKNOWN, None)
    assert alien is not None
    assert not alien.is_ours


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change an owner")
def test_pipes_are_given_to_the_user() -> None:
    read, write = os.pipe()
    share_pipes([write, write], None)
    assert os.fstat(write).st_uid == 0
    share_pipes([write], find_identity(UNKNOWN, UNKNOWN, None))
    assert stat.S_ISFIFO(os.fstat(write).st_mode)
    assert os.fstat(write).st_uid == UNKNOWN
    os.close(read)
    os.close(write)
