"""Files that have their name only once they are whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from trio_supervisor.diagnostics.heap.unfinished_file import UnfinishedFile
from trio_supervisor.errors import HeapFileError


@pytest.fixture(
    params=["without a name", "with a name for the time being"], autouse=True
)
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One that has files without names, and one that has not."""
    kind: str = request.param
    if kind != "without a name":
        monkeypatch.delattr(os, "O_TMPFILE")
    return kind


def test_unfinished_file_gets_its_name_at_finish(
    tmp_path: Path, file_system: str
) -> None:
    path = tmp_path / "file"
    file = UnfinishedFile.create(str(path))
    os.write(file.descriptor, b"whole")
    assert not path.exists()
    assert len(os.listdir(tmp_path)) == (file_system != "without a name")
    file.finish()
    file.discard()
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_bytes() == b"whole"


def test_unfinished_file_is_private(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        file = UnfinishedFile.create(str(tmp_path / "file"))
    finally:
        os.umask(mask)
    assert stat.S_IMODE(os.fstat(file.descriptor).st_mode) == 0o600
    file.discard()


@pytest.mark.parametrize("what", ["a file", "a link", "a link to nothing", "a folder"])
@pytest.mark.parametrize("is_late", [False, True])
def test_unfinished_file_never_replaces_a_file(
    tmp_path: Path, what: str, is_late: bool
) -> None:
    """Of what is there at first, or comes to be there meanwhile."""
    path, other = tmp_path / "file", tmp_path / "other"
    other.write_text("precious")
    file = UnfinishedFile.create(str(path)) if is_late else None
    match what:
        case "a file":
            path.write_text("precious")
        case "a link":
            path.symlink_to(other)
        case "a link to nothing":
            path.symlink_to(tmp_path / "nothing")
        case _:
            path.mkdir()
    if file is None:
        with pytest.raises(HeapFileError, match="already exists"):
            UnfinishedFile.create(str(path))
    else:
        with pytest.raises(HeapFileError, match="File exists"):
            file.finish()
        file.discard()
    assert other.read_text() == "precious"
    assert what != "a file" or path.read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        pytest.param("nowhere/file", "No such file", id="in no folder"),
        pytest.param("/dev/null/file", "Not a directory", id="below a file"),
        pytest.param("/tmp/", "is a directory", id="a folder"),
        pytest.param("/proc/file", "^/proc/file: ", id="where no file can be made"),
    ],
)
def test_unfinished_file_at_bad_path_is_refused(path: str, problem: str) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(HeapFileError, match=problem):
        UnfinishedFile.create(path)
    assert set(os.listdir("/proc/self/fd")) == before


def test_discarded_file_is_removed(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    file = UnfinishedFile.create(str(tmp_path / "file"))
    file.discard()
    file.discard()
    assert os.listdir(tmp_path) == []
    assert set(os.listdir("/proc/self/fd")) == before


def test_unfinished_file_stays_in_its_directory(tmp_path: Path) -> None:
    """Though its folder has another name by then, and its old one leads elsewhere."""
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    file = UnfinishedFile.create(str(folder / "file"))
    folder.rename(tmp_path / "renamed")
    folder.symlink_to(elsewhere)
    file.finish()
    file.discard()
    assert os.listdir(tmp_path / "renamed") == ["file"]
    assert os.listdir(elsewhere) == []
