"""Each verb at a Ruby server: supported ones work, the others are refused."""

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
    """A fake of Ruby's server."""
    with short_directory() as directory, open_ruby_server(directory) as server:
        yield server


def run(server: RubyServer, *words: str) -> int:
    """Run a verb at *server*; return its exit code."""
    return main([*words, "--socket", str(server.path), "--timeout", "20"])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["restart", "--all"], "its own `restart` would end the application"),
        (["restart", NAME], "its own `restart` would end the application"),
        (["restart", str(PID)], "its own `restart` would end the application"),
        (
            ["restart", "--rolling", "all"],
            "its own `restart` would end the application",
        ),
        (["stop", NAME], "it cannot stop workers"),
        (["start", NAME], "it cannot start workers"),
        (["scale", "web=2"], "it cannot change the number of workers"),
        (["reload", "--dry-run"], "it can only reload the whole application"),
        (["reload", "--changed-only"], "it can only reload the whole application"),
        (["reload", "--abort"], "it cannot abort a reload"),
        (["probe", "readiness"], "it does not report the health of the application"),
        (["events"], "it does not record events"),
        (["logs"], "it does not keep output"),
        (["status", "--wait-ready"], "it does not report when workers are ready"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_unsupported_verb_is_refused_and_not_sent(
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
def test_status_shows_its_workers(
    ruby: RubyServer, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ruby, verb) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "PID", "CONNECTION"]
    assert [row.split() for row in rows] == [[NAME, str(p), IDS[p]] for p in IDS]
    assert ruby.operations == ["status"]


@pytest.mark.parametrize("verb", ["status", "workers"])
@pytest.mark.parametrize("word", [str(PID), f"pid-{PID}", ID])
def test_status_of_one_worker(
    ruby: RubyServer, verb: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ruby, verb, word) == 0
    _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split() for row in rows] == [[NAME, str(PID), ID]]
    assert run(ruby, verb, "nothing") == 1
    assert "no worker or service is named 'nothing'" in capsys.readouterr().err


def test_workers_json_lists_its_workers(
    ruby: RubyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ruby, "workers", "--json") == 0
    workers = json.loads(capsys.readouterr().out)
    assert [(w["process_id"], w["is_managed"]) for w in workers] == [
        (p, False) for p in IDS
    ]


def test_ping_reports_a_foreign_server(
    ruby: RubyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ruby, "ping") == 0
    assert "responds, but it is not trio_supervisor" in capsys.readouterr().out
    assert ruby.operations == []


def test_reload_sends_restart_with_hup(
    ruby: RubyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ruby, "reload") == 0
    out = capsys.readouterr().out
    assert out == (
        "reload requested; this server does not report when it is complete\n"
    )
    assert ruby.calls[-1] == {"do": "restart", "signal": "HUP"}


def test_shutdown_sends_restart_with_int(
    ruby: RubyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ruby, "shutdown") == 0
    assert capsys.readouterr().out == "shutting down\n"
    assert ruby.calls[-1] == {"do": "restart", "signal": "INT"}


@pytest.mark.parametrize("word", [str(PID), f"pid-{PID}", ID])
def test_dump_is_forwarded_by_connection_id(
    ruby: RubyServer, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The call has no field that the server does not know: no name, no timeout."""
    ruby.answers["thread_dump"] = {"data": "#<Thread run>\n"}
    assert run(ruby, "thread-dump", word) == 0
    assert capsys.readouterr().out == "#<Thread run>\n"
    assert ruby.calls[-1] == {
        "do": "forward",
        "connection_id": ID,
        "operation": {"do": "thread_dump"},
    }


def test_ambiguous_name_lists_candidates(
    ruby: RubyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ruby, "thread-dump", NAME) == 1
    err = capsys.readouterr().err
    for process_id, id_ in IDS.items():
        assert f"(pid {process_id}, connection {id_})" in err
    assert "forward" not in ruby.operations


def test_memory_dump_prints_the_path(
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
        ({}, "the worker's connection closed before it answered"),
    ],
    ids=["message alone", "string", "object", "the worker ended"],
)
def test_failure_prints_its_message(
    ruby: RubyServer,
    answer: dict[str, object],
    text: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ruby.answers["memory_dump"] = answer
    assert run(ruby, "memory-dump", str(PID)) == 1
    assert capsys.readouterr().err == f"trio-supervisor: {text}\n"


def test_operation_unknown_to_the_worker_prints_its_error(
    ruby: RubyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(ruby, "doctor", str(PID), "--duration", "1") == 1
    err = capsys.readouterr().err
    assert err.startswith("trio-supervisor: NoMethodError: undefined method `do_doctor")


def test_call_accepts_an_empty_answer(
    ruby: RubyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    ruby.answers["ping"] = {}
    ruby.answers["thread_dump"] = {}
    assert run(ruby, "call", str(PID), "ping") == 0
    assert run(ruby, "call", str(PID), "thread_dump", "log=here") == 0
    assert capsys.readouterr().out == "{}\n{}\n"
