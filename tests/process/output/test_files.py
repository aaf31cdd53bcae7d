"""Files that output goes to."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from trio_supervisor.errors import SpecError
from trio_supervisor.process.output.files import OutputFiles, open_file


async def test_a_file_is_made_for_its_owner_and_group_and_appended_to(
    tmp_path: Path,
) -> None:
    """Logs tell secrets."""
    path = tmp_path / "log"
    for line in b"one\n", b"two\n":
        files = OutputFiles()
        destination = files.open(str(path), "worker.0", "stdout")
        destination.put(line)
        await destination.flush()
        files.close()
    assert path.read_bytes() == b"one\ntwo\n"
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 & ~mask


def link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def directory(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(link, "symbolic link", id="a link to somewhere else"),
        pytest.param(directory, "Is a directory", id="a directory"),
        pytest.param(fifo, "a fifo that nobody reads", id="a fifo"),
    ],
)
def test_what_is_no_file_is_refused(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    """The error names the field, the path and the reason."""
    path = tmp_path / "log"
    make(path)
    with pytest.raises(SpecError, match=reason) as caught:
        open_file(str(path), "stdout")
    assert str(caught.value).startswith(f"stdout: cannot write to {path}: ")
    assert not (tmp_path / "elsewhere").exists()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"no directory {tmp_path}/logs; create it"):
        open_file(str(tmp_path / "logs" / "log"), "stderr")


async def test_a_file_of_several_children_is_open_once_until_the_last_has_left(
    tmp_path: Path,
) -> None:
    """Else their lines would mix."""
    path, files = str(tmp_path / "log"), OutputFiles()
    shared = files.open(path, "worker.0", "stdout")
    assert files.open(path, "worker.1", "stderr") is shared
    files.leave("worker.0")
    assert files.destinations == [shared]
    files.leave("worker.1")
    assert files.destinations == []
    assert files.open(path, "worker.0", "stdout") is not shared
    files.close()


async def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    """What was written before is in the old one, what comes after in the new one."""
    path, files = tmp_path / "log", OutputFiles()
    destination = files.open(str(path), "worker.0", "stdout")
    destination.put(b"one\n")
    await destination.flush()
    path.rename(tmp_path / "log.1")
    destination.put(b"two\n")
    await destination.flush()
    files.reopen()
    destination.put(b"three\n")
    await destination.flush()
    files.close()
    assert (tmp_path / "log.1").read_bytes() == b"one\ntwo\n"
    assert path.read_bytes() == b"three\n"


async def test_a_file_that_cannot_be_opened_anew_is_written_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log says so."""
    directory, files = tmp_path / "logs", OutputFiles()
    directory.mkdir()
    destination = files.open(str(directory / "log"), "worker.0", "stdout")
    directory.rename(tmp_path / "old")
    files.reopen()
    destination.put(b"one\n")
    await destination.flush()
    files.close()
    assert (tmp_path / "old" / "log").read_bytes() == b"one\n"
    assert "no directory" in caplog.text
    assert "the old file is kept" in caplog.text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
async def test_a_full_disk_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    files = OutputFiles()
    destination = files.open("/dev/full", "worker.0", "stdout")
    for _ in range(3):
        destination.put(b"one\n")
        await destination.flush()
    files.close()
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "/dev/full cannot be written: No space left" in errors[0].getMessage()
