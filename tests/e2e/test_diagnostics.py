"""Test each diagnostic verb against real workers."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator

import pytest

from tests.kits.diagnosed import data, open_diagnosed, text
from tests.kits.serving import Serving


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_diagnosed() as found:
        yield found


def test_thread_dump_names_line(serving: Serving) -> None:
    found = text(serving, "thread-dump", "plain.0")
    assert "MainThread" in found
    assert "while not worker.stopping.wait(1):" in found


def test_thread_dump_locals_only_on_request(serving: Serving) -> None:
    """Variables whose name suggests a secret are hidden."""
    assert "'a local'" not in text(serving, "thread-dump", "plain.0")
    found = text(serving, "thread-dump", "plain.0", "--locals")
    assert "place = 'a local'" in found
    assert "password = <hidden>" in found


def test_thread_dump_of_service_covers_each_worker(serving: Serving) -> None:
    assert set(data(serving, "thread-dump", "plain")) == {"plain.0", "plain.1"}


def test_thread_dump_with_gil_held_is_read_from_memory(serving: Serving) -> None:
    report = data(serving, "thread-dump", "holds")
    assert report["way"] == "memory"
    assert "in c_code" in report["data"]
    assert "no answer from the worker" in text(serving, "thread-dump", "holds")


def test_thread_dump_of_stopped_worker_reports_it(serving: Serving) -> None:
    process_id = serving.worker("plain.1")["process_id"]
    os.kill(process_id, signal.SIGSTOP)
    try:
        report = data(serving, "thread-dump", "plain.1")
        assert report["way"] == "kernel"
        assert "stopped by a signal such as SIGSTOP" in report["data"]
        done = serving.cli("scheduler-dump", "plain.1", "--timeout", "1")
        assert done.returncode == 1
        assert "did not answer 'scheduler_dump'" in done.stderr
        assert "last message" in done.stderr
        assert "SIGSTOP" in done.stderr
    finally:
        os.kill(process_id, signal.SIGCONT)


def test_scheduler_dump_shows_trio_tasks(serving: Serving) -> None:
    found = text(serving, "scheduler-dump", "tasks")
    assert "nursery (3)" in found
    assert "\N{MULTIPLICATION SIGN}3" in found
    report = data(serving, "scheduler-dump", "tasks")
    assert report["loops"] == ["trio"]
    assert sum(task["name"].endswith("waits") for task in report["tasks"]) == 3


def test_scheduler_dump_shows_asyncio_tasks(serving: Serving) -> None:
    report = data(serving, "scheduler-dump", "loops")
    assert report["loops"] == ["asyncio"]
    assert "sleeper" in {task["name"] for task in report["tasks"]}


def test_scheduler_dump_sync_worker_has_no_loop(serving: Serving) -> None:
    assert text(serving, "scheduler-dump", "plain.0").strip() == "no event loop"


def test_slow_tasks_keeps_stall_with_its_line(serving: Serving) -> None:
    """It may take several samples until one falls into a stall."""
    while not (report := data(serving, "slow-tasks", "tasks"))["stalls"]:
        pass
    functions = {f["function"] for stall in report["stalls"] for f in stall["frames"]}
    assert "stalls" in functions
    assert report["threshold"] == 0.25


def test_garbage_profile_counts_collections(serving: Serving) -> None:
    report = data(serving, "garbage-profile", "plain.0", "--duration", "0.2")
    assert report["collections"] == sum(
        generation["collections"] for generation in report["generations"]
    )


def test_profile_is_speedscope_json(serving: Serving) -> None:
    path = serving.directory / "tmp" / "profile.json"
    words = ("profile", "tasks", "--duration", "1", "-o", str(path))
    assert re.search(r"\d samples in .* overhead \d", text(serving, *words))
    profile = json.loads(path.read_text())
    assert profile["$schema"].startswith("https://www.speedscope.app")
    assert path.stat().st_mode & 0o777 == 0o600
    again = serving.cli(*words)
    assert (again.returncode, "File exists" in again.stderr) == (2, True)
    path.unlink()


def test_profile_as_collapsed_stacks(serving: Serving) -> None:
    words = ("profile", "tasks", "--duration", "2", "--format", "collapsed")
    assert "stalls" in text(serving, *words)


def test_descriptors_and_lock_dump(serving: Serving) -> None:
    assert "supervisor.ipc" in text(serving, "descriptors", "loops")
    assert text(serving, "lock-dump", "loops").strip()


def test_call_service_operation(serving: Serving) -> None:
    listed = text(serving, "call", "leaks", "--list")
    assert "cache_stats(prefix: str, limit: int = 3)" in listed
    assert "How full the cache is." in listed
    found = data(serving, "call", "leaks", "cache_stats", "prefix=n", "limit=7")
    assert found["data"]["limit"] == 7
    bad = serving.cli("call", "leaks", "cache_stats", "limit=x")
    assert "prefix: missing" in bad.stderr
    assert "limit: expected int" in bad.stderr
    failed = serving.cli("call", "leaks", "fails")
    assert (failed.returncode, "LookupError" in failed.stderr) == (1, True)
    assert "Traceback" not in failed.stderr


def test_ruby_operation_names_are_answered(serving: Serving) -> None:
    with serving.peer() as client:
        line = (
            '{"id":2,"do":"forward","name":"tasks.0",'
            '"operation":{"do":"scheduler_dump"}}'
        )
        assert "nursery" in client.ask(line)["data"]
