"""Test each diagnostic verb against real workers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kits.serving import (
    COMMAND,
    PATIENCE,
    Serving,
    environment_of_children,
    open_serving,
)

SERVICE = """
import asyncio, ctypes, os, threading, time
import trio
from trio_supervisor import Application, Service, SyncWorker, Worker

CACHE = {}

def cache_stats(prefix: str, limit: int = 3) -> dict[str, int]:
    "How full the cache is."
    return {prefix: len(CACHE), "limit": limit}

async def fails() -> None:
    raise LookupError("not here")

async def leaks(worker: Worker) -> None:
    worker.handle("cache_stats", cache_stats)
    worker.handle("fails", fails)
    await worker.ready()
    number = 0
    while True:
        await trio.sleep(0.01)
        for number in range(number, number + 50):
            CACHE[number] = f"value {number}" * 10

async def tasks(worker: Worker) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(waits)
        await worker.ready()
        while True:
            await trio.sleep(0.1)
            stalls()

async def waits() -> None:
    with trio.move_on_after(1000):
        await trio.sleep_forever()

def stalls() -> None:
    time.sleep(0.7)

async def sleeps() -> None:
    await asyncio.sleep(1000)

async def loops(worker: Worker) -> None:
    task = asyncio.create_task(sleeps(), name="sleeper")
    await worker.ready()
    await asyncio.gather(task)

def plain(worker: SyncWorker) -> None:
    worker.ready()
    place, password = "a local", "hunter2"
    while not worker.stopping.wait(1):
        pass

def holds(worker: SyncWorker) -> None:
    worker.ready()
    c_code()

def c_code() -> None:
    while True:
        ctypes.PyDLL(None).usleep(100_000_000)

async def obeys(worker: Worker) -> None:
    worker.handle("hold", hold)
    worker.handle("nap", nap)
    await worker.ready()
    await trio.sleep_forever()

def hold() -> None:
    ctypes.PyDLL(None).read(os.pipe()[0], ctypes.create_string_buffer(1), 1)

def early(worker: SyncWorker) -> None:
    worker.ready()
    hold()

def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "had a nap"

application = Application(
    services=[
        Service("leaks", leaks),
        Service("tasks", tasks),
        Service("loops", loops, backend="asyncio"),
        Service("plain", plain, backend="sync", count=2),
        Service("holds", holds, backend="sync", stop_timeout=0.5),
        Service("early", early, backend="sync", stop_timeout=0.5),
        Service("obeys", obeys, health_check_timeout=None, stop_timeout=0.5),
    ],
)
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(SERVICE, is_ready=False) as found:
        found.wait_event(event="all_ready")
        for name in (
            "leaks.0",
            "tasks.0",
            "loops.0",
            "plain.0",
            "plain.1",
            "obeys.0",
        ):
            found.wait_worker(name, connected=True)
        yield found


def text(serving: Serving, *words: str) -> str:
    """Run a verb, check that it succeeds, and return its output."""
    done = serving.cli(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def data(serving: Serving, *words: str) -> Any:
    """Run a verb with ``--json`` and return the parsed output."""
    return json.loads(text(serving, *words, "--json"))


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


def diagnosis(serving: Serving, name: str) -> Any:
    """Return the findings of the doctor, after checking that the text has the same."""
    words = ("doctor", name, "--duration", "1")
    done = serving.cli(*words)
    assert (done.returncode, done.stderr) == (1, "")
    told = serving.cli(*words, "--json")
    assert (told.returncode, told.stderr) == (1, "")
    report = json.loads(told.stdout)
    (finding,) = report["findings"]
    assert finding["title"] in done.stdout
    assert (finding["severity"], finding["certainty"]) == ("standstill", "sure")
    return report


def test_doctor_stopped_worker_is_reported(serving: Serving) -> None:
    """No call waits for a stopped worker."""
    process_id = serving.worker("plain.1")["process_id"]
    os.kill(process_id, signal.SIGSTOP)
    try:
        report = diagnosis(serving, "plain.1")
        assert (report["way"], report["findings"][0]["kind"]) == ("kernel", "stopped")
        assert f"kill -CONT {process_id}" in report["findings"][0]["advice"]
        done = serving.cli("profile", "plain.1", "--duration", "1")
        assert done.returncode == 1
        assert "did not answer 'profile' within" in done.stderr
        assert "s ago; it is stopped by a signal such as SIGSTOP" in done.stderr
    finally:
        os.kill(process_id, signal.SIGCONT)


def test_doctor_unconnected_worker_names_line(
    serving: Serving,
) -> None:
    """It has run C code since it was ready, so its agent could never connect."""
    report = diagnosis(serving, "early.0")
    assert (report["way"], report["findings"][0]["kind"]) == ("memory", "stuck")
    assert "in hold: ctypes.PyDLL(None).read(" in report["findings"][0]["title"]


def test_doctor_waits_for_slow_agent(serving: Serving) -> None:
    """The agent answers pings during that time."""
    answer = data(serving, "call", "obeys", "nap", "seconds=6")
    assert answer["data"] == "had a nap"


def test_doctor_gil_holder_names_line(serving: Serving) -> None:
    """No caller waits for a call that cannot be answered."""
    done = serving.cli("call", "obeys", "hold", "--timeout", str(PATIENCE))
    assert done.returncode == 1
    assert "obeys.0" in done.stderr
    assert "C code called at " in done.stderr
    assert " holds the GIL" in done.stderr
    report = diagnosis(serving, "obeys.0")
    assert (report["way"], report["findings"][0]["kind"]) == ("memory", "stuck")
    assert "in hold: ctypes.PyDLL(None).read(" in report["findings"][0]["title"]
    assert report["findings"][0]["evidence"]


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


def test_memory_sample_names_holder_of_growth(serving: Serving) -> None:
    report = data(serving, "memory-sample", "leaks", "--duration", "3")
    assert report["total_retained"]["count"] > 1000
    largest = report["holders"][0]
    assert any("CACHE" in step["text"] for step in largest["chain"])
    assert largest["chain"][0]["file"].endswith("service.py")
    by_class = sum(group["memory"] for group in report["by_class"])
    assert by_class == report["total_retained"]["memory"]


def test_memory_sample_while_another_runs_is_refused(serving: Serving) -> None:
    with serving.peer() as client:
        sample = '{"do":"memory_sample","duration":8,"progress":true}'
        client.send(f'{{"id":2,"do":"forward","name":"leaks.0","operation":{sample}}}')
        assert 0 < client.receive()["progress"] < 1
        second = serving.cli("memory-sample", "leaks", "--duration", "0.1")
        assert (second.returncode, "Busy" in second.stderr) == (1, True)
        while not (answer := client.receive()).get("finished"):
            pass
        assert answer["total_retained"]["count"] > 0


def test_memory_sample_ctrl_c_ends_it_in_worker(serving: Serving) -> None:
    """Until then a terminal shows its progress."""
    ours, theirs = os.openpty()
    with (
        open(ours, "rb", buffering=0) as terminal,
        subprocess.Popen(
            [*COMMAND, "memory-sample", "leaks", "--duration", "600"],
            cwd=serving.directory,
            env=environment_of_children(),
            stderr=theirs,
        ) as process,
    ):
        os.close(theirs)
        seen = b""
        while "░".encode() not in seen:
            seen += terminal.read(4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    while serving.cli("memory-sample", "leaks", "--duration", "0.1").returncode != 0:
        pass


def test_memory_dump_is_private_and_never_overwrites(serving: Serving) -> None:
    one, two = serving.directory / "tmp" / "one", serving.directory / "tmp" / "two"
    for path in (one, two):
        assert str(path) in text(serving, "memory-dump", "leaks", "--path", str(path))
        assert path.stat().st_mode & 0o777 == 0o600
    again = serving.cli("memory-dump", "leaks", "--path", str(one))
    assert again.returncode == 1
    assert str(one) in again.stderr
    assert "str" in text(serving, "heap", str(one))
    assert data(serving, "heap", str(one), str(two))["new"]["count"] > 0
    one.unlink()
    two.unlink()


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


def test_memory_sample_with_memray_names_allocating_line(serving: Serving) -> None:
    pytest.importorskip("memray")
    words = ("memory-sample", "leaks", "--duration", "2", "--engine", "memray")
    report = data(serving, *words)
    frames = [frame for site in report["sites"] for frame in site["frames"]]
    assert "leaks" in {frame["function"] for frame in frames}
    assert serving.cli("allocation-trace-start", "leaks").returncode == 0
    refused = serving.cli(*words)
    assert (refused.returncode, "Busy" in refused.stderr) == (1, True)
    assert "traced by memray" in text(serving, "allocation-trace-stop", "leaks")
    assert serving.cli("allocation-trace-stop", "leaks").returncode == 1


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
