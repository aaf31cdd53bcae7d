"""Test Ruby workers and clients at a real server.

The lines are from real dialogues of a worker and a client of
async-container-supervisor 0.10; tests/wire/golden/ has them whole.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.kits.serving import PATIENCE, RawPeer, Serving, open_serving
from trio_supervisor import open_client

RUBY_BACKTRACE = (
    "#<Thread:0x00007ff6a6cda9c0 run>\n"
    "gems/async-container-supervisor/lib/async/container/supervisor/worker.rb:136:in "
    "`backtrace'\n"
)

SMALL = """
from trio_supervisor import Application, MemoryMonitor, Service, SyncWorker

def work(worker: SyncWorker) -> None:
    worker.ready()
    worker.stopping.wait()

application = Application(
    services=[Service("web", work, backend="sync", count=2, intensity=0)],
    monitors=[MemoryMonitor(interval=0.05, maximum_size_limit=2**40)],
)
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """Serve two Python workers."""
    with open_serving(SMALL) as serving:
        yield serving


@pytest.fixture
def ruby_worker(serving: Serving) -> Iterator[RawPeer]:
    """Register a Ruby worker, whose state has only its pid."""
    with serving.peer() as peer:
        answer = peer.ask(
            f'{{"id":2,"do":"register","state":{{"process_id":{os.getpid()}}}}}'
        )
        assert set(answer) == {"id", "finished", "connection_id"}
        assert (answer["id"], answer["finished"]) == (2, True)
        yield peer


def ruby_row(serving: Serving) -> dict[str, Any]:
    """Return the row of the Ruby worker."""
    return serving.worker(f"pid-{os.getpid()}")


def test_ruby_worker_is_in_status(serving: Serving, ruby_worker: RawPeer) -> None:
    row = ruby_row(serving)

    assert row["process_id"] == os.getpid()
    assert (row["state"], row["connected"], row["service"]) == ("ready", True, None)
    shown = serving.cli("status").stdout
    (line,) = (line for line in shown.splitlines() if f"pid-{os.getpid()}" in line)
    assert line.split()[:4] == [f"pid-{os.getpid()}", str(os.getpid()), "ready", "yes"]
    assert "(not started by this controller)" in line


def test_ruby_worker_is_monitored(serving: Serving, ruby_worker: RawPeer) -> None:
    """The MemoryMonitor samples it like any other worker."""
    end = time.monotonic() + PATIENCE
    while True:
        status = json.loads(serving.cli("status", "--json").stdout)
        process = status["monitors"]["memory_monitor"]["processes"][str(os.getpid())]
        if process["sample_count"]:
            break
        assert time.monotonic() < end
    assert process["current_size"] > 1024 * 1024
    assert process["maximum_size_limit"] == 2**40
    assert process["threshold_size"] == 10 * 1024 * 1024


async def test_ruby_worker_answers_forwarded_thread_dump(serving: Serving) -> None:
    """Ruby's clients call by connection id, ours by name."""
    with trio.fail_after(PATIENCE), RawPeer(serving.socket) as worker:
        answer = worker.ask(
            f'{{"id":2,"do":"register","state":{{"process_id":{os.getpid()}}}}}'
        )
        ruby_client = RawPeer(serving.socket)
        with ruby_client:
            connection_id = answer["connection_id"]
            ruby_client.send(
                f'{{"id":6,"do":"forward","connection_id":"{connection_id}",'
                f'"operation":{{"do":"thread_dump"}}}}'
            )
            call = await trio.to_thread.run_sync(worker.receive)
            assert call == {"id": 3, "do": "thread_dump"}
            reply = {"id": 3, "finished": True, "data": RUBY_BACKTRACE}
            worker.send(json.dumps(reply))
            forwarded = await trio.to_thread.run_sync(ruby_client.receive)
            assert forwarded == {"id": 6, "finished": True, "data": RUBY_BACKTRACE}

        async with open_client(str(serving.socket)) as client:
            async with trio.open_nursery() as nursery:

                async def answer_it() -> None:
                    call = await trio.to_thread.run_sync(worker.receive)
                    assert call == {"id": 5, "do": "thread_dump"}
                    worker.send(json.dumps({**reply, "id": 5}))

                nursery.start_soon(answer_it)
                report = await client.thread_dump(f"pid-{os.getpid()}")
            assert report.data == RUBY_BACKTRACE
            assert report.threads == ()


def test_ruby_worker_error_class_is_kept(
    serving: Serving, ruby_worker: RawPeer
) -> None:
    """Its error has a backtrace; our answer has a class and a message."""
    with serving.peer() as client:
        client.send(
            f'{{"id":8,"do":"forward","name":"pid-{os.getpid()}",'
            f'"operation":{{"do":"xyz","depth":3}}}}'
        )
        assert ruby_worker.receive() == {"id": 3, "do": "xyz", "depth": 3}
        ruby_worker.send(
            '{"id":3,"finished":true,"failed":true,"error":{"class":"NoMethodError",'
            '"message":"undefined method `do_xyz\' for an instance of '
            'Async::Container::Supervisor::Worker","backtrace":["gems/x.rb:23"]}}'
        )
        answer = client.receive()
    assert (answer["id"], answer["finished"], answer["failed"]) == (8, True, True)
    assert answer["error"] == {
        "class": "NoMethodError",
        "message": (
            "undefined method `do_xyz' for an instance of "
            "Async::Container::Supervisor::Worker"
        ),
    }


def test_ruby_worker_progress_is_passed_on(
    serving: Serving, ruby_worker: RawPeer
) -> None:
    with serving.peer() as client:
        client.send(
            f'{{"id":2,"do":"forward","name":"pid-{os.getpid()}",'
            f'"operation":{{"do":"memory_sample","duration":1}}}}'
        )
        assert ruby_worker.receive() == {"id": 3, "do": "memory_sample", "duration": 1}
        ruby_worker.send('{"id":3,"progress":0.5}')
        assert client.receive() == {"id": 2, "progress": 0.5}
        ruby_worker.send('{"id":3,"finished":true,"data":"{\\"total\\":1}"}')
        assert client.receive() == {"id": 2, "finished": True, "data": '{"total":1}'}


def rss(process_id: int) -> int:
    """Return the resident memory of a process [bytes]."""
    pages = Path(f"/proc/{process_id}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def test_ruby_worker_answer_past_limit_fails_only_that_call(
    serving: Serving, ruby_worker: RawPeer
) -> None:
    """Both connections stay open; the supervisor keeps none of the 48 MiB."""
    supervisor = serving.call("status")["supervisor"]["process_id"]
    before = rss(supervisor)
    call = (
        f'"do":"forward","name":"pid-{os.getpid()}","operation":{{"do":"thread_dump"}}'
    )
    with serving.peer() as client:
        client.send(f'{{"id":2,{call}}}')
        assert ruby_worker.receive() == {"id": 3, "do": "thread_dump"}
        ruby_worker.send(
            json.dumps({"id": 3, "finished": True, "data": "x" * (48 << 20)})
        )
        answer = client.receive()
        assert answer["error"]["class"] == "LimitExceeded"
        assert "8388608 bytes" in answer["error"]["message"]

        client.send(f'{{"id":4,{call}}}')
        assert ruby_worker.receive() == {"id": 5, "do": "thread_dump"}
        ruby_worker.send('{"id":5,"finished":true,"data":"short"}')
        assert client.receive() == {"id": 4, "finished": True, "data": "short"}
    assert rss(supervisor) - before < 32 << 20


def test_call_past_limit_fails_alone(serving: Serving) -> None:
    with serving.peer() as client:
        call = {"id": 2, "do": "logs", "names": ["x" * (9 << 20)]}
        answer = client.ask(json.dumps(call))
        assert answer["error"]["class"] == "LimitExceeded"
        assert client.ask('{"id":2,"do":"ping"}') == {"id": 2, "finished": True}


def test_ruby_client_memory_sample_is_one_answer_with_json(serving: Serving) -> None:
    """The bake task reads `JSON.parse(response[:data])` of a single answer."""
    (connection, *_) = serving.call("status")["connections"]
    with serving.peer() as client:
        answer = client.ask(
            f'{{"id":2,"do":"forward","operation":{{"do":"memory_sample",'
            f'"duration":0.6}},"connection_id":"{connection["connection_id"]}"}}'
        )
    assert answer["finished"] is True
    report = json.loads(answer["data"])
    assert set(report["total_retained"]) == {"size", "count"}
    titles = [aggregate["title"] for aggregate in report["aggregates"]]
    assert titles == ["By Package", "By File", "By Location", "By Class"]


@pytest.mark.parametrize(
    ("do", "text"),
    [("thread_dump", "MainThread"), ("scheduler_dump", ""), ("lock_dump", "")],
)
def test_ruby_client_memory_dump_to_path(serving: Serving, do: str, text: str) -> None:
    path = serving.directory / f"{do}.txt"
    (connection, *_) = serving.call("status")["connections"]
    operation = {"do": do, "path": str(path)}
    call = {"do": "forward", "connection_id": connection["connection_id"]}
    with serving.peer() as client:
        line = {"id": 2, **call, "operation": operation}
        assert client.ask(json.dumps(line)) == {
            "id": 2,
            "finished": True,
            "path": str(path),
        }
        assert text in path.read_text()
        again = client.ask(json.dumps({**line, "id": 4}))
        assert "already exists" in again["error"]["message"]


def test_ruby_client_dump_to_log(serving: Serving) -> None:
    serving.call(
        "forward", name="web.0", operation={"do": "thread_dump", "log": "look here"}
    )
    serving.wait_line("look here")
    serving.wait_line("worker.stopping.wait()")


def test_ruby_client_garbage_profile_to_path(serving: Serving) -> None:
    path = serving.directory / "garbage.txt"
    for operation in (
        {"do": "garbage_profile_start"},
        {"do": "garbage_profile_stop", "path": str(path)},
    ):
        answer = serving.call("forward", name="web.0", operation=operation)
    assert answer == {"path": str(path)}
    assert path.read_text()


def test_workers_with_same_name_are_addressed_by_id(serving: Serving) -> None:
    """Every verb accepts the connection id; the table has a column for it."""
    with serving.peer() as one, serving.peer() as two:
        ids = []
        for peer in (one, two):
            answer = peer.ask(
                f'{{"id":2,"do":"register","state":{{"process_id":{os.getpid()},'
                f'"name":"Fal\\u001b[2Jcon"}}}}'
            )
            ids.append(answer["connection_id"])
        shown = serving.cli("status").stdout
        assert "CONNECTION" in shown
        assert all(id_ in shown for id_ in ids)
        assert "\x1b" not in shown, "a name cannot steer a terminal"

        dump = serving.cli("thread-dump", str(os.getpid()))
        assert dump.returncode == 1
        assert "names 2 workers" in dump.stderr
        assert all(id_ in dump.stderr for id_ in ids)
        refused = serving.cli("restart", ids[0])
        assert refused.returncode == 1
        assert "was not started by this controller" in refused.stderr


def test_verb_accepts_pid(serving: Serving) -> None:
    """The output has the name of the worker."""
    before = serving.worker("web.1")
    done = serving.cli("restart", str(before["process_id"]))
    assert (done.returncode, done.stdout) == (0, "web.1 restarted\n")
    after = serving.worker("web.1")
    assert after["process_id"] != before["process_id"]
    serving.wait_worker("web.1", connected=True)
    by_id = serving.cli("thread-dump", serving.worker("web.1")["connection_id"])
    assert "MainThread" in by_id.stdout


def test_ruby_worker_that_disconnects_is_removed(
    serving: Serving, ruby_worker: RawPeer
) -> None:
    connection_id = ruby_row(serving)["connection_id"]
    with serving.peer() as client:
        client.send(
            f'{{"id":2,"do":"forward","connection_id":"{connection_id}",'
            f'"operation":{{"do":"thread_dump"}}}}'
        )
        ruby_worker.receive()

        ruby_worker.__exit__()

        answer = client.receive()
        assert answer["error"]["class"] == "ConnectionLost"
        again = client.ask(
            f'{{"id":4,"do":"forward","connection_id":"{connection_id}",'
            f'"operation":{{"do":"thread_dump"}}}}'
        )
        assert again == {
            "id": 4,
            "finished": True,
            "failed": True,
            "error": "Connection not found",
            "connection_id": connection_id,
        }


def test_ruby_client_status_has_monitors_then_connections(
    serving: Serving,
) -> None:
    with serving.peer() as client:
        monitor = client.ask('{"id":2,"do":"status"}')
        status = client.receive()

    assert set(monitor) == {"id", "memory_monitor"}
    assert set(monitor["memory_monitor"]) == {
        "total_size",
        "total_size_limit",
        "free_size_minimum",
        "processes",
    }
    assert (status["id"], status["finished"]) == (2, True)
    pids = {w["process_id"] for w in serving.call("workers")["workers"]}
    connections = status["connections"]
    assert {connection["process_id"] for connection in connections} == pids
    for connection in connections:
        assert set(connection) == {"connection_id", "process_id", "state"}
        assert connection["state"]["process_id"] == connection["process_id"]
        assert connection["state"]["connection_id"] == connection["connection_id"]


def test_ruby_client_restart_with_hup_reloads(serving: Serving) -> None:
    """As with async-service, everything is imported again, including the supervisor."""
    before = serving.when_ready()
    since = serving.mark()

    with serving.peer() as client:
        answer = client.ask('{"id":4,"do":"restart","signal":"HUP"}')

    assert (answer["id"], answer["finished"]) == (4, True)
    assert answer["generation"] == 2
    assert serving.wait_event(since=since, event="reloaded")["generation"] == 2
    serving.wait_event(since=since, event="started", name="supervisor")
    serving.wait_event(since=since, event="supervisor_connected")
    after = serving.when_ready()
    assert after["supervisor"]["process_id"] != before["supervisor"]["process_id"]
    pids = [{w["process_id"] for w in report["workers"]} for report in (before, after)]
    assert not pids[0] & pids[1]
    assert {worker["generation"] for worker in after["workers"]} == {2}
    exits = serving.select(since, event="exited")
    assert {(event["returncode"], event["is_planned"]) for event in exits} == {
        (0, True)
    }


@pytest.mark.parametrize("signal", ['"INT"', '"TERM"', "null"])
def test_ruby_client_restart_restarts_everything(serving: Serving, signal: str) -> None:
    """The restart is graceful: no signal is sent as such, and no crash is counted."""
    before = [worker["process_id"] for worker in serving.when_ready()["workers"]]

    with serving.peer() as client:
        answer = client.ask(f'{{"id":4,"do":"restart","signal":{signal}}}')

    assert answer == {"id": 4, "finished": True}
    after = [worker["process_id"] for worker in serving.when_ready()["workers"]]
    assert not set(before) & set(after)
    exits = serving.select(event="exited")
    assert {(event["returncode"], event["is_planned"]) for event in exits} == {
        (0, True)
    }


@pytest.mark.parametrize("signal", ['"KILL"', '"STOP"', '"SIGHUP"', '""', "9"])
def test_ruby_client_other_signals_are_refused(serving: Serving, signal: str) -> None:
    before = serving.when_ready()

    with serving.peer() as client:
        answer = client.ask(f'{{"id":4,"do":"restart","signal":{signal}}}')

    assert (answer["failed"], answer["error"]["class"]) == (True, "BadRequest")
    assert "signal" in answer["error"]["message"]
    after = serving.when_ready()
    assert after["supervisor"]["process_id"] == before["supervisor"]["process_id"]
    pids = [[w["process_id"] for w in report["workers"]] for report in (before, after)]
    assert pids[0] == pids[1]
