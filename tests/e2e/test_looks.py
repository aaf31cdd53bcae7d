"""Test that no diagnostic command harms a worker of any kind."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kits.serving import PATIENCE, Serving, open_serving

SERVICE = """
import asyncio, ctypes, multiprocessing, os, sqlite3, subprocess, sys, threading, time

import trio
from trio_supervisor import Application, Command, Service, SyncWorker, Worker

def again(do):
    # Plain code that does something again and again, and can tell how often.
    def run(worker: SyncWorker) -> None:
        counts, problems = [0], []
        worker.handle("count", lambda: {"count": counts[0], "problems": problems})
        def works() -> None:
            while not worker.stopping.is_set():
                try:
                    do()
                except BaseException as exc:
                    problems.append(repr(exc))
                counts[0] += 1
                time.sleep(0.05)  # nine of them share a machine
        thread = threading.Thread(target=works)
        thread.start()
        worker.ready()
        works()
        thread.join()
    return run

# Threads of OpenBLAS would spin for 0.1 s after each product, on all processors.
os.environ["OPENBLAS_THREAD_TIMEOUT"] = "4"

def multiply() -> None:
    import numpy  # in one worker only: the memory of the others is sampled faster
    matrix = numpy.ones((200, 200))
    assert (matrix @ matrix)[0, 0] == 200

class Poll(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("r", ctypes.c_short)]

quiet = Poll(os.pipe()[0], 1, 0)

def poll() -> None:
    # Without the GIL: only a signal could end it early, or a closed descriptor.
    assert ctypes.CDLL(None).poll(ctypes.byref(quiet), 1, 20) == 0

def exhausted(worker: SyncWorker) -> None:
    import resource
    worker.ready()
    def exhaust() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    worker.handle("exhaust", exhaust)
    worker.stopping.wait()

def sleep() -> None:
    assert ctypes.CDLL(None).usleep(20_000) == 0

def churn() -> None:
    thread = threading.Thread(target=bytearray, args=(100_000,))
    thread.start()
    thread.join()

def query() -> None:
    with sqlite3.connect(":memory:") as database:
        assert database.execute("select 1").fetchone() == (1,)

def wait() -> None:
    assert subprocess.run(["true"]).returncode == 0

def wait_for_any() -> None:
    # A child that is not its own would be returned here.
    lock.acquire()
    try:
        pid = os.posix_spawn("/bin/true", ["true"], {})
        assert os.wait() == (pid, 0)
    finally:
        lock.release()

lock = threading.Lock()

async def loops(worker: Worker) -> None:
    counts = [0]
    worker.handle("count", lambda: {"count": counts[0], "problems": []})
    await worker.ready()
    while True:
        await asyncio.sleep(0.01)
        counts[0] += 1

def pool(worker: SyncWorker) -> None:
    counts = [0]
    worker.handle("count", lambda: {"count": counts[0], "problems": []})
    with multiprocessing.get_context("spawn").Pool(1) as workers:
        assert workers.map(abs, [-1]) == [1]
        worker.ready()
        while not worker.stopping.is_set():
            assert workers.map(abs, [-1, -2]) == [1, 2]
            counts[0] += 1
            time.sleep(0.05)

def hold() -> None:
    left = ctypes.PyDLL(None).sleep(6)
    print("left to sleep:", left, file=sys.stderr, flush=True)

def end() -> None:
    print("the disk is full", flush=True)
    os._exit(3)

async def ends(worker: Worker) -> None:
    worker.handle("end", end)
    worker.handle("hold", hold)
    await worker.ready()
    await trio.sleep_forever()

application = Application(
    services=[
        *(
            Service(do.__name__.replace("_", "-"), again(do), backend="sync")
            for do in (multiply, poll, sleep, churn, query, wait, wait_for_any)
        ),
        Service("loops", loops, backend="asyncio"),
        Service("pool", pool, backend="sync", stop_timeout=1),
        Service("ends", ends),
        Service("exhausted", exhausted, backend="sync"),
        Command("command", ["sh", "-c", "echo hello; sleep 1000 & wait"]),
        Command("broken", ["sh", "-c", "echo no such table; exit 3"]),
    ],
)
"""
NAMES = (
    *("multiply.0", "poll.0", "sleep.0", "churn.0", "query.0", "wait.0"),
    *("wait-for-any.0", "loops.0", "pool.0"),
)
LOOKS = (
    *(("thread-dump",), ("call", "lock_dump"), ("profile", "--duration", "0.2")),
    *(("memory-sample", "--duration", "0.2"), ("doctor", "--duration", "0.5")),
)


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(SERVICE, is_ready=False) as found:
        found.wait_event(name="supervisor", event="ready")
        for name in (*NAMES, "ends.0", "exhausted.0"):
            found.wait_worker(name, connected=True)
        yield found


def counted(serving: Serving, name: str) -> dict[str, Any]:
    done = serving.cli("call", name, "count", "--timeout", str(PATIENCE))
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)["data"]
    return answer


def test_thread_dump_does_not_interrupt_sleep_in_c_code(serving: Serving) -> None:
    """The C code holds the GIL, so the agent cannot answer."""
    thread = threading.Thread(target=serving.cli, args=("call", "ends.0", "hold"))
    thread.start()
    report: dict[str, Any] = {}
    while report.get("way") != "memory":
        report = json.loads(serving.cli("thread-dump", "ends.0", "--json").stdout)
    assert "sleeping in clock_nanosleep" in report["data"]
    assert "in hold" in report["data"]
    thread.join()
    serving.wait_event(name="ends.0", message="left to sleep: 0")  # seconds


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_diagnostics_do_not_harm_worker(serving: Serving, name: str) -> None:
    """It keeps its process, nothing in it fails, and its work continues."""
    process_id = serving.worker(name)["process_id"]
    before = counted(serving, name)["count"]
    for verb, *options in LOOKS:
        words = (verb, name, *options)
        done = serving.cli(*words, "--timeout", str(PATIENCE))
        assert (done.returncode in (0, 1), done.stderr) == (True, ""), words
    after = counted(serving, name)
    assert after["problems"] == []
    assert after["count"] > before
    worker = serving.worker(name)
    assert (worker["process_id"], worker["restarts"]) == (process_id, 0)


def test_doctor_worker_exits_during_examination_is_reported(serving: Serving) -> None:
    process_id = serving.worker("ends.0")["process_id"]
    forward = {"id": 2, "do": "forward", "name": "ends.0", "timeout": PATIENCE}
    with serving.peer() as peer:
        operation = {"do": "doctor", "duration": 50, "progress": True}
        peer.send(json.dumps({**forward, "operation": operation}))
        assert "progress" in peer.receive()  # the examination has begun
        ended = serving.cli("call", "ends.0", "end").stderr
        while not (answer := peer.receive()).get("finished"):
            pass
    report = answer
    (finding,) = report["findings"]
    assert "exited before it answered 'end': exit code 3" in ended
    assert (report["way"], finding["kind"]) == ("ended", "ended")
    assert f"(pid {process_id}) exited during the examination" in finding["title"]
    assert "exit code 3" in finding["title"]
    assert "last output: the disk is full" in finding["evidence"]
    assert ".json` shows the full report" in finding["advice"]


def test_doctor_worker_without_descriptors_is_reported(serving: Serving) -> None:
    """The worker is asked itself; what it cannot inspect is seen from outside."""
    assert serving.cli("call", "exhausted.0", "exhaust").returncode == 0
    done = serving.cli("doctor", "exhausted.0", "--duration", "0.5")
    assert (done.returncode, done.stderr) == (1, "")
    assert "almost out of file descriptors" in done.stdout
    assert "(limit 1, RLIMIT_NOFILE)" in done.stdout
    assert "its Python code: in the worker: Too many open files" in done.stdout
    sample = serving.cli("memory-sample", "exhausted.0", "--duration", "0.1")
    assert sample.returncode == 1
    assert "Exhausted: in the worker: Too many open files" in sample.stderr


def test_doctor_of_command_is_incomplete(serving: Serving) -> None:
    """Its exit code says too that not everything was checked."""
    done = serving.cli("doctor", "command", "--duration", "0.5")
    assert (done.returncode, done.stderr) == (2, "")
    head, *lines = done.stdout.splitlines()
    assert head.startswith("Incomplete: no problem found")
    text = "\n".join(lines)
    for part in (
        *("process: sleeping in", "threads: 1", "CPU: 0% of one"),
        *("MiB resident", "descriptors: ", "children: 1", "sleep (pid "),
        *("history: 0 restarts, up ", "last output: hello", "has no agent"),
    ):
        assert part in text


def test_doctor_of_command_not_running_gives_reason(serving: Serving) -> None:
    serving.wait_worker("broken.0", state="backoff")
    while (done := serving.cli("doctor", "broken")).returncode == 2:
        pass  # it was just started again
    assert done.returncode == 1
    assert "exit code 3" in done.stdout
    assert "last output: no such table" in done.stdout
