"""Every verb against a server that sends terminal escape sequences."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.kits.serving import short_directory
from tests.kits.wire_examples import RESULTS
from trio_supervisor.cli.main import main
from trio_supervisor.wire.codec import to_fields
from trio_supervisor.wire.messages import StatusReport

EVIL = "\x1b]0;evil\x07\x1b[2J\x9b31m\r\n14:00:00 fake\x7f\u202e"
VERBS = {
    "ping": [],
    "status": [],
    "workers": [],
    "events": [],
    "logs": ["web"],
    "probe": ["readiness"],
    "restart": ["web.0"],
    "reload": [],
    "scale": ["web=2"],
    "stop": ["web.0"],
    "start": ["web.0"],
    "shutdown": ["--no-wait"],
    "thread-dump": ["web.0"],
    "scheduler-dump": ["web.0"],
    "lock-dump": ["web.0"],
    "descriptors": ["web.0"],
    "slow-tasks": ["web.0"],
    "allocation-trace-start": ["web.0"],
    "allocation-trace-stop": ["web.0"],
    "memory-sample": ["web.0", "--duration", "0.01"],
    "garbage-profile": ["web.0", "--duration", "0.01"],
    "profile": ["web.0", "--duration", "0.01", "--format", "collapsed"],
    "memory-dump": ["web.0"],
    "doctor": ["web.0", "--duration", "0.01"],
    "call": ["web.0", "own"],
}
REPORTS = {verb for verb in VERBS if VERBS[verb][:1] == ["web.0"]} - {"call"}
"""Verbs that print a report of the peer."""
LISTED = {"call": ["web.0", "--list"]}
Answer = Callable[[dict[str, Any]], list[dict[str, Any]]]


def worker() -> dict[str, Any]:
    """Return a worker that the verbs can find, with escapes in every string."""
    status = next(r for r in RESULTS if isinstance(r, StatusReport) and r.workers)
    fields: dict[str, Any] = to_fields(attrs.evolve(status).workers[0])
    words = {key: EVIL for key, value in fields.items() if isinstance(value, str)}
    return {**fields, **words, "name": "web.0", "service": "web", "is_managed": True}


def evil(call: dict[str, Any]) -> list[dict[str, Any]]:
    """Answer *call* in a form that any verb accepts."""
    entry = {"time": EVIL, "name": EVIL, "message": EVIL, "stream": EVIL}
    handler = {"name": EVIL, "parameters": {EVIL: EVIL}, "description": EVIL}
    line = {"share": 0.5, "file": EVIL, "line": 1, "function": EVIL}
    progress: dict[str, Any] = {
        "entries": [entry],
        "snapshot": {EVIL: EVIL},
        "missed": 1,
        EVIL: {"problem": EVIL},
    }
    last: dict[str, Any] = {
        "supervisor": {"process_id": 1, "incarnation": 1, "uptime": 1.0, EVIL: EVIL},
        "controller": {"process_id": 1},
        "workers": [worker(), {**worker(), "name": EVIL, "service": EVIL}],
        "details": {EVIL: [EVIL], "not_ready": {EVIL: EVIL}},
        "is_ok": True,
        "lines": [EVIL],
        "generation": 1,
        "not_ready": {EVIL: EVIL},
        "stopped": [EVIL],
        "data": EVIL,
        "path": EVIL,
        "samples": 1,
        "duration": 1.0,
        "overhead": 0.1,
        "hottest": [line],
        "operations": [EVIL],
        "handlers": [handler],
        "findings": [],
    }
    return [progress, {**last, "finished": True}]


def failing(call: dict[str, Any]) -> list[dict[str, Any]]:
    error = {"class": EVIL, "message": EVIL}
    return [{"finished": True, "failed": True, "error": error}]


def wrong(value: object) -> Answer:
    """Return a server's function that answers with *value* in each field."""

    def answer(call: dict[str, Any]) -> list[dict[str, Any]]:
        last = dict.fromkeys(evil(call)[-1], value)
        return [
            {"entries": value, "snapshot": value, "missed": value},
            {**last, "finished": True},
        ]

    return answer


@contextmanager
def open_evil(answer: Answer) -> Iterator[Path]:
    """Run a server that answers every call by *answer*."""
    with short_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = directory / "s"
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        def talk(connection: socket.socket) -> None:
            with suppress(OSError), connection, connection.makefile("rb") as file:
                for line in file:
                    call = json.loads(line)
                    for fields in answer(call):
                        data = json.dumps({"id": call["id"], **fields}).encode()
                        connection.sendall(data + b"\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str]:
    """Run a verb in this process; return its exit code and its output."""
    data = io.BytesIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(data, "utf-8"))
    try:
        code = main(words)
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    text = data.getvalue().decode()
    monkeypatch.undo()
    return code, text


def check(text: str, *, is_report: bool = False) -> None:
    """Check that *text* has no control character, and no faked line of ours.

    Args:
        is_report: Whether it is a report of the peer, which may have any lines.
    """
    control = {c for c in text if (not c.isprintable() and c not in "\n\t")}
    assert not control, text
    if not is_report:
        lines = text.splitlines()
        assert not [line for line in lines if line.startswith("14:00:00 fake")]


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("answer", [evil, failing], ids=["answers", "failures"])
def test_answers_are_escaped_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, as_json: bool
) -> None:
    """Each field of each verb, as text and as JSON, which stays valid."""
    with open_evil(answer) as path:
        for verb, words in [*VERBS.items(), *LISTED.items()]:
            options = ["--socket", str(path), *(["--json"] if as_json else [])]
            code, text = run(monkeypatch, verb, *words, *options)
            assert "Traceback" not in text, verb
            assert code in (0, 1), (verb, text)
            check(text, is_report=answer is evil and verb in REPORTS)
            if as_json and code == 0 and verb not in ("events", "logs"):
                json.loads(text)


@pytest.mark.parametrize(
    "value",
    [None, 1, "x", [], {}, [1], {"a": 1}, [{}], {"a": {"b": [None]}}, True, 1e300],
    ids=repr,
)
def test_malformed_answer_is_a_one_line_error(
    monkeypatch: pytest.MonkeyPatch, value: object
) -> None:
    """There is never a traceback, whichever field is malformed."""
    with open_evil(wrong(value)) as path:
        for verb, words in [*VERBS.items(), *LISTED.items()]:
            code, text = run(monkeypatch, verb, *words, "--socket", str(path))
            assert "Traceback" not in text, verb
            assert code in (0, 1, 2), (verb, text)
            check(text)


def test_post_mortems_are_escaped_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By name, in the list, and with fields of wrong types."""
    record = dict.fromkeys(
        ("time", "cause", "exit", "status", "problem", "fault", "since"), EVIL
    )
    whole = {
        **record,
        "name": "web.0",
        "process_id": 1,
        "last_lines": [EVIL],
        "evidence": [{"cause": EVIL, "stacks": EVIL}],
    }
    (tmp_path / "1-web.0-1.json").write_text(json.dumps(whole))
    for words in ([], ["web.0"], ["--json"], ["web.0", "--json"]):
        code, text = run(monkeypatch, "post-mortem", "--state", str(tmp_path), *words)
        assert (code, "Traceback" in text) == (0, False)
        check(text, is_report=words == ["web.0"])
    broken = {**whole, "evidence": 1, "last_lines": 2, "ready_for": "x"}
    (tmp_path / "1-web.0-1.json").write_text(json.dumps(broken))
    code, text = run(monkeypatch, "post-mortem", "--state", str(tmp_path), "web.0")
    assert (code, "Traceback" in text) == (1, False)
    assert os.listdir(tmp_path) == ["1-web.0-1.json"]
