"""Each verb at a server that is not ours: what it can do is done, the rest refused."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.kits.ruby_server import IDS, NAME, RubyServer, open_ruby_server
from tests.kits.serving import short_directory
from trio_supervisor.cli.main import main

PID = 13506
ID = IDS[PID]


@pytest.fixture
def ruby() -> Iterator[RubyServer]:
    """A Ruby server."""
    with short_directory() as directory, open_ruby_server(directory) as server:
        yield server


def run(server: RubyServer, *words: str) -> int:
    """Run a verb at *server*; return its exit code."""
    return main([*words, "--socket", str(server.path), "--timeout", "20"])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["restart"], "its own would end the application; use `reload`"),
        (["restart", NAME], "its own would end the application; use `reload`"),
        (["restart", str(PID)], "its own would end the application; use `reload`"),
        (["restart", "--rolling"], "its own would end the application"),
        (["stop", NAME], "it cannot stop workers"),
        (["start", NAME], "it cannot start workers"),
        (["scale", "web=2"], "it cannot change the number of workers"),
        (["reload", "--dry-run"], "it can only reload everything"),
        (["reload", "--changed-only"], "it can only reload everything"),
        (["reload", "--abort"], "it cannot abort a reload"),
        (["probe", "readiness"], "it does not tell how the application is"),
        (["events"], "it keeps no events"),
        (["logs"], "it keeps no output"),
        (["status", "--wait-ready"], "it does not tell when workers are ready"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_it_cannot_do_is_refused_and_never_sent(
    ruby: RubyServer,
    words: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(ruby, *words) == 1

    out, err = capsys.readouterr()
    assert err.startswith("trio-supervisor: the server is not trio_supervisor: ")
    assert reason in err
    assert (out, err.count("\n")) == ("", 1)
    assert set(ruby.operations) <= {"status"}


@pytest.mark.parametrize("verb", ["status", "workers"])
def test_its_workers_are_shown(
    ruby: RubyServer, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ruby, verb) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "PID", "CONNECTION"]
    assert [row.split() for row in rows] == [[NAME, str(p), IDS[p]] for p in IDS]
    assert ruby.operations == ["status"]


def test_its_workers_are_told_to_programs(
    ruby: RubyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ruby, "workers", "--json") == 0
    workers = json.loads(capsys.readouterr().out)
    assert [(w["process_id"], w["is_managed"]) for w in workers] == [
        (p, False) for p in IDS
    ]


def test_ping_says_what_it_is(
    ruby: RubyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ruby, "ping") == 0
    assert "responds, but it is not trio_supervisor" in capsys.readouterr().out
    assert ruby.operations == []


def test_a_reload_is_its_hangup(
    ruby: RubyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ruby, "reload") == 0
    out = capsys.readouterr().out
    assert out == (
        "asked the server to reload everything; it does not tell when it has\n"
    )
    assert ruby.calls[-1] == {"do": "restart", "signal": "HUP"}


def test_a_shutdown_is_its_restart(
    ruby: RubyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ruby, "shutdown") == 0
    assert capsys.readouterr().out == "shutting down\n"
    assert ruby.calls[-1] == {"do": "restart", "signal": "INT"}


@pytest.mark.parametrize("word", [str(PID), f"pid-{PID}", ID])
def test_a_dump_is_forwarded_by_connection(
    ruby: RubyServer, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is sent that it does not know: no name, and no timeout."""
    ruby.answers["thread_dump"] = {"data": "#<Thread run>\n"}
    assert run(ruby, "thread-dump", word) == 0
    assert capsys.readouterr().out == "#<Thread run>\n"
    assert ruby.calls[-1] == {
        "do": "forward",
        "connection_id": ID,
        "operation": {"do": "thread_dump"},
    }


def test_a_shared_name_is_refused_with_its_candidates(
    ruby: RubyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ruby, "thread-dump", NAME) == 1
    err = capsys.readouterr().err
    for process_id, id_ in IDS.items():
        assert f"(pid {process_id}, connection {id_})" in err
    assert "forward" not in ruby.operations


def test_a_dump_written_to_a_file_says_where(
    ruby: RubyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    ruby.answers["memory_dump"] = {"path": "/tmp/heap.json"}
    assert run(ruby, "memory-dump", str(PID), "--path", "/tmp/heap.json") == 0
    assert capsys.readouterr().out == "written to /tmp/heap.json\n"
    assert ruby.calls[-1]["operation"] == {
        "do": "memory_dump",
        "path": "/tmp/heap.json",
    }


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            {"failed": True, "error": {"message": "Buffered output not supported!"}},
            "Buffered output not supported!",
        ),
        (
            {"failed": True, "error": "Connection not found", "connection_id": ID},
            "Connection not found",
        ),
        (
            {"failed": True, "error": {"class": "ArgumentError", "message": "no"}},
            "ArgumentError: no",
        ),
        ({}, "no answer from the worker: its connection ended"),
    ],
    ids=["message alone", "string", "object", "the worker ended"],
)
def test_a_failure_is_shown_as_its_message(
    ruby: RubyServer,
    answer: dict[str, object],
    text: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ruby.answers["memory_dump"] = answer
    assert run(ruby, "memory-dump", str(PID)) == 1
    assert capsys.readouterr().err == f"trio-supervisor: {text}\n"


def test_a_verb_that_its_worker_lacks_fails_by_the_name_of_its_error(
    ruby: RubyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ruby, "doctor", str(PID), "--duration", "1") == 1
    err = capsys.readouterr().err
    assert err.startswith("trio-supervisor: NoMethodError: undefined method `do_doctor")


def test_an_operation_may_answer_nothing(
    ruby: RubyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    ruby.answers["ping"] = {}
    ruby.answers["thread_dump"] = {}
    assert run(ruby, "call", str(PID), "ping") == 0
    assert run(ruby, "call", str(PID), "thread_dump", "log=here") == 0
    assert capsys.readouterr().out == "{}\n{}\n"
