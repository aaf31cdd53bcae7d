"""Test the rotation of files that output is written to."""

from __future__ import annotations

import gzip
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from trio_supervisor.process.output.destination import Destination
from trio_supervisor.process.output.files import OutputFiles
from trio_supervisor.process.output.rotation import Rotation, RotationPlan

DAY = 86_400.0


@pytest.fixture(autouse=True)
def vienna(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "Europe/Vienna")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def due(plan: RotationPlan, size: int = 1, then: float = 0.0, now: float = 0.0) -> bool:
    return plan.is_due(size, then, now, is_whole=True)


def test_size_decides() -> None:
    plan = RotationPlan(max_size=100)
    assert [due(plan, size) for size in (0, 99, 100, 101)] == [False, False, True, True]


def test_rotation_waits_for_the_end_of_a_line_but_not_for_ever() -> None:
    plan = RotationPlan(max_size=100, max_age=DAY)
    sizes = [plan.is_due(size, 0.0, DAY, is_whole=False) for size in (1, 100, 199, 200)]
    assert sizes == [False, False, False, True]


def test_age_counts_from_local_midnight() -> None:
    plan = RotationPlan(max_age=DAY)
    evening = 1_795_733_999.0  # 23:59:59 in Vienna
    assert not due(plan, then=evening - 23 * 3600, now=evening)
    assert due(plan, then=evening, now=evening + 1)


def opened(path: Path, **options: Any) -> tuple[OutputFiles, Destination]:
    files = OutputFiles()
    plan = RotationPlan(**{"is_compressed": False, **options})
    return files, files.open(str(path), "web.0", "log_file", plan)


def write(destination: Destination, *lines: bytes) -> None:
    for line in lines:
        destination.put(line)
        assert destination.drain(30)


def test_old_files_are_numbered_and_limited(tmp_path: Path) -> None:
    files, destination = opened(tmp_path / "log", max_size=6, keep=2)
    write(destination, *(b"line %d\n" % number for number in range(5)))
    files.close()
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == {"log": "line 4\n", "log.1": "line 3\n", "log.2": "line 2\n"}


def test_files_after_a_gap_keep_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_text("one\n")
    (tmp_path / "log.3").write_text("three\n")
    files, destination = opened(tmp_path / "log", max_size=6, keep=5)
    write(destination, b"line 1\n", b"line 2\n")
    files.close()
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == {
        "log": "line 2\n",
        "log.1": "line 1\n",
        "log.2": "one\n",
        "log.3": "three\n",
    }


def test_nothing_is_lost_or_written_twice(tmp_path: Path) -> None:
    files, destination = opened(tmp_path / "log", max_size=1000, keep=10_000)
    lines = [b"%07d\n" % number for number in range(20_000)]
    for line in lines:
        destination.put(line)
    assert destination.drain(30)
    files.close()

    def number(path: Path) -> int:
        return -int(path.suffix[1:] or 0)

    found = sorted(tmp_path.iterdir(), key=number)
    assert b"".join(path.read_bytes() for path in found) == b"".join(lines)


def test_file_of_an_earlier_run_counts(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 99 + b"\n")
    files, destination = opened(tmp_path / "log", max_size=100)
    write(destination, b"new\n")
    files.close()
    assert (tmp_path / "log").read_bytes() == b"new\n"
    assert (tmp_path / "log.1").stat().st_size == 100


def test_file_of_yesterday_is_rotated(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\n")
    os.utime(log, (time.time() - DAY, time.time() - DAY))
    files, destination = opened(log, max_age=DAY)
    write(destination, b"new\n", b"newer\n")
    files.close()
    assert log.read_text() == "new\nnewer\n"
    assert (tmp_path / "log.1").read_text() == "old\n"


def test_no_file_is_kept_on_request(tmp_path: Path) -> None:
    files, destination = opened(tmp_path / "log", max_size=1, keep=0)
    write(destination, b"a\n", b"b\n")
    files.close()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"log": "b\n"}


def test_fewer_are_kept_after_a_change(tmp_path: Path) -> None:
    for number in range(1, 6):
        (tmp_path / f"log.{number}").write_text("old\n")
    files, destination = opened(tmp_path / "log", max_size=1, keep=2)
    write(destination, b"a\n", b"b\n")
    files.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.1", "log.2"]


def test_old_files_are_compressed_with_their_mode(tmp_path: Path) -> None:
    files, destination = opened(tmp_path / "log", max_size=1, is_compressed=True)
    write(destination, b"a\n")
    (tmp_path / "log").chmod(0o600)
    (tmp_path / "log.1.gz.new").write_text("of a controller that was killed")
    write(destination, b"b\n")
    wait_compressed(files)
    write(destination, b"c\n")
    wait_compressed(files)
    files.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["log", "log.1.gz", "log.2.gz"]
    assert gzip.decompress((tmp_path / "log.2.gz").read_bytes()) == b"a\n"
    assert stat.S_IMODE((tmp_path / "log.2.gz").stat().st_mode) == 0o600


def wait_compressed(files: OutputFiles) -> None:
    for file in files._files.values():
        if (thread := file.rotation._compressing) is not None:
            thread.join()


def test_link_in_place_of_an_old_file_is_replaced(tmp_path: Path) -> None:
    """What it points to is not touched."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "log.1").symlink_to(tmp_path / "precious")
    files, destination = opened(tmp_path / "log", max_size=1, keep=1)
    write(destination, b"a\n", b"b\n")
    files.close()
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "log.1").read_text() == "a\n"
    assert not (tmp_path / "log.1").is_symlink()


def test_directory_in_the_way_is_logged_and_written_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "log.1").mkdir()
    (tmp_path / "log.2").mkdir()
    (tmp_path / "log.2" / "x").touch()
    files, destination = opened(tmp_path / "log", max_size=1, keep=1)
    write(destination, b"a\n", b"b\n", b"c\n")
    files.close()
    assert (tmp_path / "log").read_text() == "a\nb\nc\n"
    (record,) = caplog.records
    assert record.getMessage().startswith(f"cannot rotate {tmp_path}/log: ")


def test_file_that_another_program_moved_is_left_alone(tmp_path: Path) -> None:
    files, destination = opened(tmp_path / "log", max_size=1)
    write(destination, b"a\n")
    (tmp_path / "log").rename(tmp_path / "moved")
    write(destination, b"b\n")
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]
    files.reopen()
    write(destination, b"c\n")
    files.close()
    assert (tmp_path / "log").read_text() == "c\n"


def test_what_is_no_file_is_not_rotated() -> None:
    rotation = Rotation("/dev/null", RotationPlan(max_size=1), lambda: 1 // 0)
    with open("/dev/null", "wb") as file:
        assert rotation.before_write(file.fileno()) is None


def test_file_keeps_its_name_if_no_new_one_can_be_opened(tmp_path: Path) -> None:
    def reopen() -> int:
        raise OSError("no file left")

    path = tmp_path / "log"
    path.write_text("a\n")
    rotation = Rotation(str(path), RotationPlan(max_size=1), reopen)
    with open(path, "ab") as file:
        assert rotation.before_write(file.fileno()) is None
    assert [each.name for each in tmp_path.iterdir()] == ["log"]
