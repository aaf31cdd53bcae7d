"""Heap dumps: what is in the file, and that there is none unless it is whole."""

from __future__ import annotations

import json
import os
import resource
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trio_supervisor.diagnostics.heap.heap_compare import compare_heaps, summarize_heap
from trio_supervisor.diagnostics.heap.heap_dump import HeapDump
from trio_supervisor.diagnostics.memory.memory_sample import MemorySampling
from trio_supervisor.errors import BusyError, HeapFileError, SnapshotError
from trio_supervisor.wire.memory_reports import DumpReport

TIME_BOX = 60.0


class Planted:
    """To be found in a dump."""

    def __init__(self, held: object = None) -> None:
        self.held = held


PLANTED = f"{Planted.__module__}.{Planted.__qualname__}"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Neither a descriptor nor a child."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def dump(path: Path, *, with_repr: bool = False) -> DumpReport:
    dumping = HeapDump.start(str(path), TIME_BOX, with_repr=with_repr)
    try:
        dumping.snapshot.wait()
        return dumping.finish()
    finally:
        dumping.abort()


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    with open(path) as file:
        yield from map(json.loads, file)


def test_a_dump_holds_every_object_with_what_it_refers_to(tmp_path: Path) -> None:
    path = tmp_path / "heap"
    text = f"held by the planted one at {path}" * 100
    planted = Planted(text)
    report = dump(path, with_repr=True)
    header, *objects, end = lines_of(path)
    assert header["process_id"] == os.getpid()
    assert end == {"objects": len(objects), "memory": sum(o["size"] for o in objects)}
    assert report.objects == len(objects)
    assert report.size == path.stat().st_size
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = {one["address"]: one for one in objects}
    assert len(found) == len(objects)
    one = found[id(planted)]
    assert (one["type"], one["module"]) == ("Planted", __name__)
    assert "repr" not in one
    assert id(text) in one["referents"]
    held = found[id(text)]
    assert (held["type"], held["size"]) == ("str", sys.getsizeof(text))
    assert held["repr"].startswith("'held by the planted one at ")
    assert len(held["repr"]) < 150


def test_values_are_there_only_on_request(tmp_path: Path) -> None:
    """There may be secrets among them."""
    path = tmp_path / "heap"
    secret = f"secret of {path}"
    dump(path)
    assert secret.encode() not in path.read_bytes()
    assert any(one.get("address") == id(secret) for one in lines_of(path))


def test_nothing_that_is_there_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "heap"
    path.write_text("precious")
    with pytest.raises(HeapFileError, match="already exists"):
        HeapDump.start(str(path), TIME_BOX)
    assert path.read_text() == "precious"


def test_nor_what_comes_to_be_there_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "heap"
    dumping = HeapDump.start(str(path), TIME_BOX)
    path.write_text("precious")
    dumping.snapshot.wait()
    with pytest.raises(HeapFileError, match="exists"):
        dumping.finish()
    assert os.listdir(tmp_path) == ["heap"]
    assert path.read_text() == "precious"


def test_an_aborted_dump_leaves_no_file(tmp_path: Path) -> None:
    dumping = HeapDump.start(str(tmp_path / "heap"), TIME_BOX)
    dumping.abort()
    dumping.abort()
    assert os.listdir(tmp_path) == []


def test_a_dump_that_ran_out_of_time_leaves_no_file(tmp_path: Path) -> None:
    dumping = HeapDump.start(str(tmp_path / "heap"), 0.001)
    with pytest.raises(SnapshotError, match="ran out of time"):
        dumping.snapshot.wait()
    with pytest.raises(SnapshotError, match="ran out of time"):
        dumping.finish()
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    """As a limit of the file's size, which fails in the same place."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        dumping = HeapDump.start(str(tmp_path / "heap"), TIME_BOX)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.raises(SnapshotError, match="File too large"):
        dumping.snapshot.wait()
    with pytest.raises(SnapshotError, match="File too large"):
        dumping.finish()
    assert os.listdir(tmp_path) == []


def test_one_at_a_time(tmp_path: Path) -> None:
    """And none beside a sample."""
    dumping = HeapDump.start(str(tmp_path / "heap"), TIME_BOX)
    with pytest.raises(
        BusyError, match="memory dump of this process is already running"
    ):
        HeapDump.start(str(tmp_path / "other"), TIME_BOX)
    with pytest.raises(BusyError):
        MemorySampling.start(TIME_BOX)
    dumping.abort()
    assert os.listdir(tmp_path) == []
    sampling = MemorySampling.start(TIME_BOX)
    with pytest.raises(BusyError, match="a memory sample"):
        HeapDump.start(str(tmp_path / "other"), TIME_BOX)
    sampling.abort()


def test_three_dumps_say_what_stayed(tmp_path: Path) -> None:
    """Of what was made between the first and the second."""
    paths = [tmp_path / name for name in ("first", "second", "third")]
    dump(paths[0])
    staying = [Planted() for _ in range(300)]
    going = [Planted() for _ in range(100)]
    dump(paths[1])
    del going
    later = [Planted() for _ in range(40)]
    dump(paths[2])
    found = compare_heaps([str(path) for path in paths])
    assert count_in(found.new_by_type) == len(staying) + 100
    # Some of the later ones may be in the place of those that went.
    assert 0 <= count_in(found.stayed_by_type) - len(staying) <= len(later)
    assert count_in(found.grown) == len(staying) + len(later)
    of_second = count_in(summarize_heap(str(paths[1])).by_type)
    assert of_second >= len(staying) + 100


def count_in(groups: Any) -> int:
    return sum(group.count for group in groups if group.name == PLANTED)
