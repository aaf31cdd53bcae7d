"""Writing output to files."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from trio_supervisor.errors import SpecError
from trio_supervisor.process.output.files import OutputFiles, open_file


async def test_output_file_is_created_with_mode_and_appended_to(
    tmp_path: Path,
) -> None:
    """Other users cannot read it, since logs may contain secrets."""
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
        pytest.param(fifo, "a FIFO without a reader", id="a fifo"),
    ],
)
def test_open_file_unwritable_path_raises_spec_error(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    """The error names the field, the path and the reason."""
    path = tmp_path / "log"
    make(path)
    with pytest.raises(SpecError, match=reason) as caught:
        open_file(str(path), "stdout")
    assert str(caught.value).startswith(f"stdout: cannot write to {path}: ")
    assert not (tmp_path / "elsewhere").exists()


def test_open_file_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"directory {tmp_path}/logs does not exist"):
        open_file(str(tmp_path / "logs" / "log"), "stderr")


async def test_shared_file_is_open_until_last_child_releases_it(
    tmp_path: Path,
) -> None:
    """Otherwise their lines would mix."""
    path, files = str(tmp_path / "log"), OutputFiles()
    shared = files.open(path, "worker.0", "stdout")
    assert files.open(path, "worker.1", "stderr") is shared
    files.release("worker.0")
    assert files.destinations == [shared]
    files.release("worker.1")
    assert files.destinations == []
    assert files.open(path, "worker.0", "stdout") is not shared
    files.close()


async def test_reopen_after_rotation_creates_new_file(tmp_path: Path) -> None:
    """Earlier lines are in the old file, later ones in the new file."""
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


async def test_reopen_failure_keeps_old_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The failure is logged."""
    directory, files = tmp_path / "logs", OutputFiles()
    directory.mkdir()
    destination = files.open(str(directory / "log"), "worker.0", "stdout")
    directory.rename(tmp_path / "old")
    files.reopen()
    destination.put(b"one\n")
    await destination.flush()
    files.close()
    assert (tmp_path / "old" / "log").read_bytes() == b"one\n"
    assert "does not exist; create it" in caplog.text
    assert "still writing to the old file" in caplog.text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
async def test_full_disk_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    files = OutputFiles()
    destination = files.open("/dev/full", "worker.0", "stdout")
    for _ in range(3):
        destination.put(b"one\n")
        await destination.flush()
    files.close()
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "cannot write to /dev/full: No space left" in errors[0].getMessage()
