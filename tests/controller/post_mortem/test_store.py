"""Which post-mortems are kept."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.controller.post_mortem.store import PostMortemStore, surplus


def name_of(worker: str, number: int) -> str:
    return f"20261126T{number:09}Z-{worker}-{number + 100}.json"


workers = st.sampled_from(["web.0", "web.1", "a-b-7.0", "7.0"])


@given(st.lists(workers, max_size=60))
def test_the_newest_ten_of_each_worker_are_kept(of: list[str]) -> None:
    """However often another one crashes; names with dashes and digits are names."""
    files = [name_of(worker, number) for number, worker in enumerate(of)]
    kept = set(files) - set(surplus(files))
    for worker in set(of):
        own = [name_of(worker, n) for n, other in enumerate(of) if other == worker]
        assert kept & set(own) == set(own[-10:])


def test_beyond_the_total_those_with_most_give_way() -> None:
    """498 workers with one each, and one with ten: eight of its go."""
    once = [name_of(f"web.{n}", n) for n in range(498)]
    often = [name_of("bad.0", 1000 + n) for n in range(10)]
    assert surplus([*once, *often]) == often[:8]


def test_other_files_are_left_alone() -> None:
    """Whatever somebody keeps in there."""
    assert surplus(["notes.json", "x.txt"] * 600) == []


def record(**fields: Any) -> dict[str, Any]:
    known = {
        "name": "web.0",
        "time": "2026-11-26T01:00:00",
        "cause": "exit",
        "returncode": 3,
        "evidence": [],
        "fault": "",
        "last_line": "request 17 failed",
    }
    return {**known, **fields}


def saved(directory: Path, *records: dict[str, Any]) -> list[dict[str, Any]]:
    store = PostMortemStore(str(directory))

    async def save() -> None:
        for number, each in enumerate(records):
            path = directory / name_of(each["name"], number)
            await store.save(str(path), each)

    trio.run(save)
    return [json.loads(path.read_text()) for path in sorted(directory.iterdir())]


def test_ends_that_are_the_same_are_one_file(tmp_path: Path) -> None:
    """The newest, with the number and the first time; numbers in a line may differ."""
    loop = [
        record(time=f"2026-11-26T01:00:0{n}", last_line=f"request {n} failed")
        for n in range(9)
    ]
    other = record(name="web.1", last_line="boom")
    found = saved(tmp_path, *loop[:4], other, *loop[4:])
    assert [(r["name"], r["repeats"]) for r in found] == [("web.1", 1), ("web.0", 9)]
    assert found[1]["since"] == "2026-11-26T01:00:00"
    assert found[1]["time"] == "2026-11-26T01:00:08"


@pytest.mark.parametrize(
    "change",
    [
        {"returncode": 4},
        {"cause": "unhealthy"},
        {"last_line": "boom"},
        {"fault": "Segmentation fault at line 3"},
        {"evidence": [{"cause": "unhealthy", "stacks": "a.py:1"}]},
    ],
)
def test_another_end_has_its_own_file(tmp_path: Path, change: dict[str, Any]) -> None:
    found = saved(tmp_path, record(), record(**change), record())
    assert [r["repeats"] for r in found] == [1, 1, 1]


def test_addresses_make_no_difference(tmp_path: Path) -> None:
    """They are others in each process."""
    faults = [record(fault=f"Thread 0x{n:012x} (most recent)") for n in (1, 2**40)]
    assert [r["repeats"] for r in saved(tmp_path, *faults)] == [2]


def test_a_file_that_is_gone_already_is_no_error(tmp_path: Path) -> None:
    """An operator may have removed it."""
    store = PostMortemStore(str(tmp_path))

    async def save() -> None:
        for number in range(2):
            path = tmp_path / name_of("web.0", number)
            await store.save(str(path), record())
            path.unlink()

    trio.run(save)
    assert list(tmp_path.iterdir()) == []


def test_two_that_prune_at_once_blame_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two workers, and two controllers, that save into one directory."""
    for number in range(100):
        (tmp_path / name_of("web.0", number)).touch()
    stores = [PostMortemStore(str(tmp_path)) for _ in range(2)]

    async def save() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(24):
                worker = f"web.{number % 4}"
                path = str(tmp_path / name_of(worker, 1000 + number))
                each = record(name=worker, last_line=f"line {'x' * number}")
                nursery.start_soon(stores[number % 2].save, path, each)

    trio.run(save)
    assert not caplog.records
    assert len(list(tmp_path.iterdir())) == 10 + 6 * 3


def test_what_cannot_be_removed_is_not_said_of_the_one_that_was_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(11):
        (tmp_path / name_of("web.1", number)).mkdir()
    saved_path = tmp_path / name_of("web.0", 1)
    trio.run(PostMortemStore(str(tmp_path)).save, str(saved_path), record())
    assert saved_path.exists()
    assert "cannot remove old post-mortems" in caplog.text
    assert "web.0" not in caplog.text


def test_equal_crashes_saved_at_once_are_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A superseded file is not written after its removal, however slow the disk."""
    store = PostMortemStore(str(tmp_path))
    renamed = os.rename
    is_slow = True
    has_begun, may_end = trio.Event(), threading.Event()

    async def save() -> None:
        token = trio.lowlevel.current_trio_token()

        def rename(source: str, target: str) -> None:
            nonlocal is_slow
            if is_slow:
                is_slow = False
                token.run_sync_soon(has_begun.set)
                may_end.wait()
            renamed(source, target)

        monkeypatch.setattr(os, "rename", rename)
        async with trio.open_nursery() as nursery:
            first, second = (str(tmp_path / name_of("web.0", n)) for n in range(2))
            nursery.start_soon(store.save, first, record())
            await has_begun.wait()
            nursery.start_soon(store.save, second, record())
            await trio.testing.wait_all_tasks_blocked(0.05)
            may_end.set()

    trio.run(save)
    assert [json.loads(p.read_text())["repeats"] for p in tmp_path.iterdir()] == [2]
