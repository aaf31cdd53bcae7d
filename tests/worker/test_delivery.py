"""Targets of answers: the caller, a file, or the log."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from trio.testing import memory_stream_pair

from trio_supervisor.errors import BadRequestError, HeapFileError
from trio_supervisor.link.peer import (
    Fields,
    IncomingCall,
    Peer,
    refuse_calls,
)
from trio_supervisor.link.transport import transport_of
from trio_supervisor.wire.session import Session
from trio_supervisor.worker.delivery import (
    as_ruby_report,
    check_delivery,
    deliver,
    without_progress,
)

ANSWER = {"data": "Thread é", "threads": []}


def call_of(do: str = "thread_dump", **arguments: object) -> IncomingCall:
    """A call, from a peer that is never heard."""
    stream, _ = memory_stream_pair()
    peer = Peer(transport_of(stream), Session(is_connecting=False), refuse_calls)
    return IncomingCall(do, dict(arguments), peer, 2)


async def delivered(call: IncomingCall, answer: Any) -> Mapping[str, object]:
    """What is answered at last."""
    found = deliver(call, answer)
    return found if isinstance(found, dict) else await found  # type: ignore[misc]


async def later() -> Fields:
    """An answer that takes a task."""
    return ANSWER


async def test_answer_without_target_goes_to_caller() -> None:
    assert deliver(call_of(), ANSWER) is ANSWER


@pytest.mark.parametrize("is_later", [False, True])
async def test_path_receives_text_in_new_file(tmp_path: Path, is_later: bool) -> None:
    path = tmp_path / "threads.txt"
    answer = later() if is_later else ANSWER

    fields = await delivered(call_of(path=str(path)), answer)

    assert fields == {"path": str(path)}
    assert path.read_text() == "Thread é\n"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["file", "link", "dangling", "directory", "fifo"])
async def test_existing_file_or_symlink_is_never_written(
    tmp_path: Path, kind: str
) -> None:
    """Other writers of the directory cannot redirect the output."""
    path, other = tmp_path / "threads.txt", tmp_path / "other"
    other.write_text("precious")
    match kind:
        case "file":
            path.write_text("precious")
        case "link":
            path.symlink_to(other)
        case "dangling":
            path.symlink_to(tmp_path / "missing")
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
    before = sorted(os.listdir(tmp_path))

    with pytest.raises(HeapFileError, match=r"threads\.txt"):
        await delivered(call_of(path=str(path)), later())

    assert sorted(os.listdir(tmp_path)) == before
    assert other.read_text() == "precious"


async def test_failed_sample_leaves_no_file(tmp_path: Path) -> None:
    async def fail() -> Fields:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await delivered(call_of(path=str(tmp_path / "x")), fail())
    assert os.listdir(tmp_path) == []


async def test_log_receives_text_below_title(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A title is one line: it cannot forge another."""
    call = call_of(log="stuck\n2026 ERROR forged")
    assert await delivered(call, ANSWER) == {}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message == "stuck 2026 ERROR forged\nThread é"


@pytest.mark.parametrize("value", [7, "", ["x"], {}, True])
@pytest.mark.parametrize("name", ["path", "log"])
async def test_target_not_string_is_refused(name: str, value: object) -> None:
    with pytest.raises(BadRequestError, match=f"^{name}: expected a nonempty text"):
        check_delivery(call_of("thread_dump", **{name: value}))


async def test_sample_has_one_of_two_formats() -> None:
    for shape in (None, "json", "text"):
        check_delivery(call_of("memory_sample", format=shape))
    check_delivery(call_of("profile", format="collapsed"))
    with pytest.raises(BadRequestError, match=r"^format: expected 'json' or 'text'"):
        check_delivery(call_of("memory_sample", format="collapsed"))


async def test_heap_dump_has_its_own_path() -> None:
    """It is not text, and is written while objects are found."""
    assert deliver(call_of("memory_dump", path="/x"), ANSWER) is ANSWER


@pytest.mark.parametrize("asked", [None, False, 1, "true"])
async def test_progress_is_not_sent_by_default(asked: object) -> None:
    call = call_of("memory_sample", progress=asked)
    quiet = without_progress(call)
    quiet.progress({"progress": 0.5})
    assert call.peer._outbox.is_empty
    assert (quiet.do, quiet.arguments) == (call.do, call.arguments)


async def test_progress_is_sent_when_requested() -> None:
    call = call_of("memory_sample", progress=True)
    assert without_progress(call) is call


def test_sample_json_has_ruby_form() -> None:
    group = {"name": "shop", "memory": 2, "count": 1}
    fields = {
        "data": "text",
        "duration": 1.0,
        "total_allocated": {"memory": 3, "count": 2},
        "total_retained": {"memory": 2, "count": 1},
        **{f"by_{by}": [group] for by in ("package", "file", "location", "class")},
        "strings": [],
        "holders": [],
    }
    report = json.loads(as_ruby_report(fields))
    amount = {"size": 2, "count": 1}
    assert report["total_allocated"] == {"size": 3, "count": 2}
    assert report["total_retained"] == amount
    assert report["aggregates"] == [
        {"title": f"By {by}", "total": amount, "totals": [["shop", amount]]}
        for by in ("Package", "File", "Location", "Class")
    ]
    assert (report["duration"], report["strings"], report["holders"]) == (1.0, [], [])
    assert "data" not in report
