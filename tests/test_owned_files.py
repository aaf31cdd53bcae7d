"""Test directories and links of other users on the way to our files."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from trio_supervisor.controller.post_mortem.store import PostMortemStore
from trio_supervisor.errors import SocketPathError, SpecError
from trio_supervisor.link.listener import check_socket_path
from trio_supervisor.owned_files import check_directory, check_links, lock_beside
from trio_supervisor.process.output.files import open_file

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")


@pytest.fixture
def foreign_link(tmp_path: Path) -> Path:
    """Return a symbolic link of another user to our own directory."""
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    os.chown(link, 12345, 12345, follow_symlinks=False)
    return link


def test_own_directory_and_own_link_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    check_directory(str(tmp_path / "real"))
    check_directory(str(tmp_path / "link"))


def test_missing_path_is_accepted(tmp_path: Path) -> None:
    check_links(str(tmp_path / "a" / "b"))
    check_links("")


def test_file_in_place_of_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        check_directory(str(tmp_path / "file"))


def test_world_writable_directory_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionError, match="world-writable"):
        check_directory(str(tmp_path))


@as_root
def test_directory_of_other_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(PermissionError, match=r"owned by another user \(uid 12345"):
        check_directory(str(tmp_path))


@as_root
@pytest.mark.parametrize("below", ["", "deeper", "deeper/still"])
def test_link_of_other_user_is_refused_anywhere(foreign_link: Path, below: str) -> None:
    with pytest.raises(PermissionError, match="symbolic link owned by uid 12345"):
        check_links(str(foreign_link / below))


@as_root
def test_socket_behind_foreign_link_is_refused(foreign_link: Path) -> None:
    with pytest.raises(SocketPathError, match="symbolic link owned by uid 12345"):
        check_socket_path(str(foreign_link / "s.ipc"))


@as_root
def test_log_file_behind_foreign_link_is_refused(foreign_link: Path) -> None:
    with pytest.raises(SpecError, match="symbolic link owned by uid 12345"):
        open_file(str(foreign_link / "log"), "log_file")
    assert not list((foreign_link.parent / "real").iterdir())


@as_root
@pytest.mark.parametrize("below", ["", "state"])
async def test_post_mortem_behind_foreign_link_is_refused(
    foreign_link: Path, below: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = PostMortemStore(str(foreign_link / below))
    record = {"name": "web.0", "time": "", "evidence": [], "fault": "", "last_line": ""}
    path = store.path_for("web.0", 1)
    await store.save(path, {**record, "cause": "crash", "returncode": 1})
    assert "cannot save the post-mortem of web.0" in caplog.text
    assert "symbolic link owned by uid 12345" in caplog.text
    assert not list((foreign_link.parent / "real").iterdir())


def test_path_with_nul_is_refused() -> None:
    with pytest.raises(SocketPathError, match="NUL"):
        check_socket_path("/tmp/a\0b")


def test_lock_file_removed_before_it_is_locked_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder has just removed it: another process would lock a new file."""
    lock_file, real_flock = tmp_path / "socket.lock", fcntl.flock
    seen: list[int] = []

    def flock(descriptor: int, operation: int) -> None:
        if not seen:
            lock_file.unlink()
        seen.append(descriptor)
        real_flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock_beside(str(tmp_path / "socket")):
        assert lock_file.exists()
    assert len(seen) == 2
