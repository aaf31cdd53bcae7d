"""Test ``call NAME doctor`` with real workers, faulty and healthy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.kits.serving import PATIENCE, Serving, open_serving

pytestmark = pytest.mark.slow

HEAD = """
import threading
import time

import anyio
from trio_supervisor import Application, Service

HELD = []

"""
TAIL = """

application = Application(services=[Service("web", work, backend={backend!r})])
"""
IDLE = """
async def work(worker):
    await worker.ready()
    await anyio.sleep_forever()
"""
IDLE_SYNC = """
def work(worker):
    worker.ready()
    while not worker.stopping.wait(0.5):
        pass
"""
BUSY = """
async def work(worker):
    await worker.ready()
    while True:
        rows = [str(number) * 3 for number in range(5_000)]
        await anyio.sleep(0)
"""
BUSY_SYNC = """
def work(worker):
    worker.ready()
    while not worker.stopping.is_set():
        sum(range(1_000))
"""
LEAK = """
async def work(worker):
    await worker.ready()
    while True:
        HELD.extend([str(number)] for number in range(100))
        await anyio.sleep(0.01)
"""
STUCK = """
async def work(worker):
    await worker.ready()
    await anyio.sleep(0.1)
    time.sleep(3600)
"""
SPINNING = """
def work(worker):
    worker.ready()
    while True:
        sum(range(1_000))
"""
DEADLOCK = """
def work(worker):
    locks, taken = (threading.Lock(), threading.Lock()), threading.Event()

    def other():
        with locks[1]:
            taken.set()
            with locks[0]:
                pass

    worker.ready()
    with locks[0]:
        threading.Thread(target=other, name="other", daemon=True).start()
        taken.wait()
        with locks[1]:
            pass
"""


def source_of(work: str, backend: str) -> str:
    """Return a service file with one service."""
    return HEAD + work + TAIL.format(backend=backend)


def doctor(serving: Serving) -> dict[str, Any]:
    """Run the command and return its output."""
    words = ("call", "web.0", "doctor", "duration=3", "--timeout", str(PATIENCE))
    done = serving.cli(*words)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(
    ("work", "backend"),
    [
        pytest.param(IDLE, "trio", id="idle, trio"),
        pytest.param(IDLE, "asyncio", id="idle, asyncio"),
        pytest.param(IDLE_SYNC, "sync", id="idle, sync"),
        pytest.param(BUSY, "trio", id="busy, trio"),
        pytest.param(BUSY, "asyncio", id="busy, asyncio"),
        pytest.param(BUSY_SYNC, "sync", id="busy, sync"),
    ],
)
def test_doctor_healthy_worker_has_no_findings(work: str, backend: str) -> None:
    with open_serving(source_of(work, backend)) as serving:
        answer = doctor(serving)

    assert answer["findings"] == [], answer["data"]
    assert answer["data"].startswith("No problem found in 3 s\n")


@pytest.mark.parametrize(
    ("work", "backend", "kind", "line"),
    [
        pytest.param(LEAK, "asyncio", "leak", "variable HELD of module", id="leak"),
        pytest.param(STUCK, "trio", "stuck", "time.sleep(3600)", id="stuck"),
        pytest.param(SPINNING, "sync", "spinning", "in work: ", id="spinning"),
        pytest.param(DEADLOCK, "sync", "deadlock", "MainThread", id="deadlock"),
    ],
)
def test_doctor_names_planted_fault(
    work: str, backend: str, kind: str, line: str
) -> None:
    with open_serving(source_of(work, backend)) as serving:
        answer = doctor(serving)

    assert [one["kind"] for one in answer["findings"]] == [kind], answer["data"]
    assert line in answer["findings"][0]["title"]
    assert answer["findings"][0]["title"] in answer["data"]


def test_doctor_twice_at_once_leaves_worker_unchanged() -> None:
    """One of the two runs without the memory sample and says so."""
    with open_serving(source_of(BUSY_SYNC, "sync")) as serving:
        with serving.peer() as peer:
            for number in (2, 4):
                operation = {"do": "doctor", "duration": 2}
                call = {"id": number, "do": "forward", "name": "web.0"}
                peer.send(json.dumps({**call, "operation": operation}))
            answers: list[dict[str, Any]] = []
            while len(answers) < 2:
                if (answer := peer.receive()).get("finished"):
                    answers.append(answer)
        again = doctor(serving)

    assert [one["findings"] for one in answers] == [[], []]
    left_out = [line for one in answers for line in one["left_out"]]
    assert any("memory sample" in line for line in left_out)
    assert again["findings"] == []
