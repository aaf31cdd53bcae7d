"""Memory samples: what is found, who is named for it, and what is left untouched."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kits import leaking
from tests.kits.places import ROOT
from trio_supervisor.diagnostics.memory.memory_sample import MemorySampling
from trio_supervisor.errors import BusyError, SnapshotError
from trio_supervisor.wire.codec import parse_result, to_fields
from trio_supervisor.wire.memory_reports import Holding, MemoryReport, ObjectGroup

TIME_BOX = 60.0
PROGRAM = Path(leaking.__file__)
LINES = PROGRAM.read_text().splitlines()

# One byte in 192 is the same by chance where a leaf takes the place of another.
NEARLY_ALL = 0.97


def line_of(mark: str) -> int:
    """The line of the program with the comment *mark*."""
    (line,) = [n for n, text in enumerate(LINES, 1) if text.endswith(f"# {mark}")]
    return line


class Sample:
    """What the program printed."""

    def __init__(self, runtime: str, *how: str) -> None:
        command = [sys.executable, "-m", "tests.kits.leaking", runtime, *how]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        assert not done.returncode, done.stderr.decode()
        self.fields: dict[str, Any] = json.loads(done.stdout)
        self.has_frozen_heap = bool(how)
        self.report = parse_result(self.fields, MemoryReport)

    def holding_of(self, size: int, count: int = leaking.COUNT) -> Holding:
        """The group of bytes of *size* each, as the program pads them."""
        for one in self.report.holders:
            each = size + sys.getsizeof(b"")
            if one.class_name == "bytes" and one.memory == each * one.count:
                assert count * NEARLY_ALL <= one.count <= count
                return one
        raise AssertionError(self.report.data)


RUNTIMES = [
    pytest.param(how, id=" ".join(how))
    for how in (("trio",), ("trio", "frozen"), ("asyncio",), ("threads",))
]


@pytest.fixture(scope="module", params=RUNTIMES)
def sample(request: pytest.FixtureRequest) -> Sample:
    return Sample(*request.param)


@pytest.mark.parametrize(
    ("size", "mark", "text"),
    [
        pytest.param(9100, "MODULE DICT", "variable BY_KEY", id="module dict"),
        pytest.param(8100, "UNTRACKED DICT", "variable LEAVES", id="untracked dict"),
        pytest.param(4100, "LRU CACHE", "lru_cache of cached()", id="lru_cache"),
        pytest.param(3100, "CLOSURE", "closure variable seen of", id="closure"),
    ],
)
def test_leak_is_named_by_its_holder(
    sample: Sample, size: int, mark: str, text: str
) -> None:
    """By file and line, both as the location and in the chain from the root."""
    holding = sample.holding_of(size)
    assert holding.is_rooted
    assert holding.location == f"{PROGRAM}:{line_of(mark)}"
    (step,) = [step for step in holding.chain if step.text.startswith(text)]
    assert (step.file, step.line) == (str(PROGRAM), line_of(mark))


def test_leak_in_local_list_names_task_or_thread(sample: Sample) -> None:
    """Of a suspended task, or of a frame that runs, which the collector cannot see."""
    step, items = sample.holding_of(7100).chain
    assert step.text.startswith("local variable mine of serve_")
    assert step.file == str(PROGRAM)
    assert step.line is not None
    assert LINES[step.line - 1].lstrip().startswith(("async def keep", "def serve"))
    assert items.text == f"a list of {leaking.COUNT}"


def test_leak_of_instances_names_class_and_holder(sample: Sample) -> None:
    variable, _, attribute = sample.holding_of(5100).chain
    assert variable.text == "variable SESSIONS of module __main__"
    assert variable.line == line_of("INSTANCES")
    assert attribute.text == "attribute data of __main__.Session"
    assert LINES[(attribute.line or 0) - 1] == "class Session:"


def test_leak_in_class_attribute_is_named(sample: Sample) -> None:
    chain = sample.holding_of(2100).chain
    line = LINES.index("class Registry:") + 1
    assert chain[0].text == "variable Registry of module __main__"
    assert (chain[0].file, chain[0].line) == (str(PROGRAM), line)
    assert "at key entries" in chain[-2].text


def test_growing_memory_channel_names_its_task() -> None:
    """Not just by the line of trio's own that all channels have in common."""
    holding = Sample("trio").holding_of(6100)
    assert holding.is_rooted
    assert holding.chain[0].text.startswith("local variable")
    assert holding.chain[0].file == str(PROGRAM)
    assert "MemoryChannelState" in holding.chain[-2].text
    assert holding.chain[-1].text == f"a deque of {leaking.COUNT}"


def test_string_in_running_frame_is_found() -> None:
    """The collector knows nothing of the variables of frames that run."""
    holding = Sample("threads").holding_of(leaking.GROWN, count=1)
    (step,) = holding.chain
    assert step.text.startswith("local variable growing of serve_threads(), in Main")
    assert step.file == str(PROGRAM)


def test_every_tracked_object_is_found(
    sample: Sample,
) -> None:
    """In whose place many of the new ones are."""
    counts = {group.name: group.count for group in sample.report.by_class}
    assert counts["__main__.Session"] == counts["__main__.Cell"] == leaking.COUNT
    assert leaking.COUNT <= counts["list"] < leaking.COUNT + 20


def test_memory_report_adds_up(sample: Sample) -> None:
    report = sample.report
    total = report.total_retained
    for groups in (
        report.by_class,
        report.by_location,
        report.by_file,
        report.by_package,
    ):
        assert sum(group.memory for group in groups) == total.memory
        assert sum(group.count for group in groups) == total.count
        sizes = [group.memory for group in groups if group.name != "(others)"]
        assert sizes == sorted(sizes, reverse=True)
    assert sum_of(report.strings) == next(
        (group.memory, group.count) for group in report.by_class if group.name == "str"
    )
    for holding in report.holders:
        assert holding.memory <= total.memory


def sum_of(groups: tuple[ObjectGroup, ...]) -> tuple[int, int]:
    return sum(g.memory for g in groups), sum(g.count for g in groups)


def test_sample_restores_frozen_objects(sample: Sample) -> None:
    assert_same_frozen(sample)
    assert sample.fields["same_collector"]


def assert_same_frozen(sample: Sample) -> None:
    before, after = sample.fields["was_frozen"], sample.fields["is_frozen"]
    # 4,000 lists and cells died meanwhile by the program's doing, and a few objects by
    # that of its event loop. (3.12 itself has frozen some when it starts.)
    died = 4_000 if sample.has_frozen_heap else 0
    assert before - died - 20 <= after <= before - died


def test_memory_report_explains_its_figures(sample: Sample) -> None:
    notes = " ".join(sample.report.notes)
    assert "not the line that allocated them" in notes
    assert "total_allocated is net" in notes
    for holding in sample.report.holders[:3]:
        assert holding.location in sample.report.data
    assert sample.report.total_allocated.memory > 0


def test_full_collection_by_application_is_noted() -> None:
    """In a process with a frozen heap it mixes old and new: the rest still holds."""
    sample = Sample("threads", "collecting")
    assert any("a full garbage collection" in note for note in sample.report.notes)
    assert sample.holding_of(9100).location == f"{PROGRAM}:{line_of('MODULE DICT')}"
    assert_same_frozen(sample)


# In this process.


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Neither a descriptor nor a child, and the collector as it was."""
    before = set(os.listdir("/proc/self/fd")), gc.get_threshold(), gc.get_freeze_count()
    yield
    assert before == (
        set(os.listdir("/proc/self/fd")),
        gc.get_threshold(),
        gc.get_freeze_count(),
    )
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


class Planted:
    """Retained, to be found by name."""


def count_of(report: MemoryReport, class_: type) -> int:
    name = f"{class_.__module__}.{class_.__qualname__}"
    return sum(group.count for group in report.by_class if group.name == name)


ARRAY: list[None] = []
BUFFER = bytearray(9_000)
FILE = io.BytesIO(bytes(9_000))
HOARD = {"buffer": bytearray()}


@pytest.mark.usefixtures("nothing_left")
def test_grown_old_objects_are_named() -> None:
    """It is in no total: those are of new objects."""
    sampling = MemorySampling.start(TIME_BOX)
    ARRAY.extend([None] * 60_000)
    BUFFER.extend(bytes(400_000))
    FILE.seek(0)
    FILE.write(bytes(300_000))
    HOARD["buffer"].extend(bytes(200_000))
    fresh = bytearray(1_000_000)
    report = sampling.finish(TIME_BOX)
    assert len(fresh) == 1_000_000
    found = {one.now: one for one in report.grown if one.now >= 200_000}
    assert [(one.class_name, one.before, one.now) for one in found.values()] == [
        ("list", 0, 480_000),
        ("bytearray", 9_000, 409_000),
        ("_io.BytesIO", 9_000, 300_000),
        ("bytearray", 0, 200_000),
    ]
    names = [one.chain[0].text for one in found.values()]
    assert [name.split()[1] for name in names] == ["ARRAY", "BUFFER", "FILE", "HOARD"]
    assert all(one.is_rooted for one in found.values())
    assert "one bytearray grew by 390.6 KiB, to 399.4 KiB" in report.data
    assert sum_of(report.by_class) == sum_of(report.by_location)


@pytest.mark.usefixtures("nothing_left")
def test_old_objects_and_garbage_are_not_retained() -> None:
    old = [Planted() for _ in range(50)]
    sampling = MemorySampling.start(TIME_BOX)
    new = [Planted() for _ in range(20)]
    for _ in range(30):
        ring: list[Any] = [Planted()]
        ring.append(ring)
    del ring
    report = sampling.finish(TIME_BOX)
    assert count_of(report, Planted) == len(new)
    assert len(old) == 50
    assert parse_result(to_fields(report), MemoryReport) == report


@pytest.mark.usefixtures("nothing_left")
def test_dict_that_becomes_tracked_is_not_new() -> None:
    """One of numbers alone is not tracked; an entry later it is."""
    old: list[dict[str, Any]] = [{"number": n} for n in range(1000)]
    gc.collect()
    assert not gc.is_tracked(old[0])
    sampling = MemorySampling.start(TIME_BOX)
    entry: list[Any] = [sampling]
    for one in old:
        one["entry"] = entry
    report = sampling.finish(TIME_BOX)
    assert sum(g.count for g in report.by_class if g.name == "dict") < 50


def be_killed(*_: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


class Meta(type):
    """Whatever one asks its classes, the process is killed."""

    __hash__ = __eq__ = __repr__ = __instancecheck__ = __subclasscheck__ = be_killed


class Touchy(metaclass=Meta):
    """Whatever one asks its instances, the process is killed."""

    __hash__ = __eq__ = __repr__ = __str__ = __len__ = __bool__ = be_killed
    __sizeof__ = __getattr__ = __iter__ = __dir__ = be_killed
    __class__ = property(be_killed)
    __dict__ = property(be_killed)


class TouchyText(str):
    """A string that is asked nothing either."""

    __slots__ = ()
    __hash__ = __eq__ = __repr__ = __len__ = __sizeof__ = be_killed


KEPT: list[Any] = []


@pytest.mark.usefixtures("nothing_left")
def test_sample_runs_no_application_code() -> None:
    sampling = MemorySampling.start(TIME_BOX)
    KEPT.extend([Touchy(), TouchyText("x"), [Touchy()], (TouchyText("y"),)])
    report = sampling.finish(TIME_BOX)
    KEPT.clear()
    assert count_of(report, Touchy) == 2
    assert count_of(report, TouchyText) == 2


@pytest.mark.usefixtures("nothing_left")
def test_strings_at_reused_addresses_are_found() -> None:
    """At the same addresses; that an address was in use before tells nothing."""
    doomed = [f"doomed {number:10}" for number in range(20_000)]
    addresses = set(map(id, doomed))
    sampling = MemorySampling.start(TIME_BOX)
    del doomed
    new: list[str] = []
    again = 0
    # Other tests of this process may have left room that is filled first.
    while len(new) < 10_000 or again <= 5_000:
        new.append(f"wanted {len(new):10}")
        again += id(new[-1]) in addresses
    report = sampling.finish(TIME_BOX)
    (count,) = [group.count for group in report.by_class if group.name == "str"]
    assert 0.98 * len(new) < count < 1.01 * len(new)


@pytest.mark.usefixtures("nothing_left")
def test_second_sample_is_busy() -> None:
    sampling = MemorySampling.start(TIME_BOX)
    with pytest.raises(
        BusyError, match="a memory sample of this process is already running"
    ):
        MemorySampling.start(TIME_BOX)
    sampling.abort()
    MemorySampling.start(TIME_BOX).abort()


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("when", ["during the period", "while it is counted"])
def test_aborted_sample_leaves_nothing_behind(when: str) -> None:
    sampling = MemorySampling.start(TIME_BOX)
    if when == "while it is counted":
        sampling.stop(TIME_BOX)
    sampling.abort()
    sampling.abort()


@pytest.mark.usefixtures("nothing_left")
def test_sample_past_time_limit_is_an_error() -> None:
    sampling = MemorySampling.start(TIME_BOX)
    with pytest.raises(SnapshotError, match="ran out of time"):
        sampling.finish(0.001)
    MemorySampling.start(TIME_BOX).abort()


@pytest.mark.usefixtures("nothing_left")
def test_sample_without_baseline_is_an_error() -> None:
    """There would be no telling which strings are new."""
    sampling = MemorySampling.start(0.001)
    with pytest.raises(SnapshotError, match="snapshot at the start"):
        sampling.finish(TIME_BOX)


@pytest.mark.usefixtures("nothing_left")
def test_any_thread_may_sample() -> None:
    reports: list[MemoryReport] = []
    thread = threading.Thread(
        target=lambda: reports.append(MemorySampling.start(TIME_BOX).finish(TIME_BOX))
    )
    thread.start()
    thread.join()
    assert reports[0].duration > 0
