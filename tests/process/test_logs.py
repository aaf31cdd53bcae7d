"""Log lines as text and as JSON."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from trio_supervisor.process.logs import (
    FORMATS,
    JournalFormatter,
    JsonFormatter,
    TextFormatter,
)
from trio_supervisor.wire.trace_context import CurrentTrace, TraceContext

MOMENT = datetime(2024, 2, 29, 23, 59, 58, 7_000, tzinfo=UTC)


def record(
    message: str = "ready in %d ms",
    *arguments: object,
    level: int = logging.INFO,
    event: object = None,
    error: Exception | None = None,
) -> logging.LogRecord:
    made = logging.LogRecord(
        "trio_supervisor",
        level,
        "file.py",
        7,
        message,
        arguments,
        (type(error), error, error.__traceback__) if error else None,
    )
    made.created, made.msecs = MOMENT.timestamp(), 7.0
    if event is not None:
        made.event = event
    return made


def text(made: logging.LogRecord, *, has_colours: bool = False) -> str:
    return TextFormatter("supervisor", has_colours=has_colours).format(made)


def fields(made: logging.LogRecord) -> dict[str, object]:
    line = JsonFormatter("supervisor").format(made)
    assert "\n" not in line
    parsed: dict[str, object] = json.loads(line)
    return parsed


def raised() -> Exception:
    """Return an error with a traceback."""
    try:
        raise ValueError("broken")
    except ValueError as exc:
        return exc


def test_text_line_has_time_source_and_message() -> None:
    line = text(record("ready in %d ms", 143))
    assert re.fullmatch(r"\d\d:59:58\.007  supervisor    ready in 143 ms", line)


def test_text_line_source_is_name_of_event() -> None:
    made = record("ready", event={"event": "ready", "name": "web.0"})
    assert text(made).endswith("  web.0         ready")


def test_text_line_long_source_is_not_cut() -> None:
    made = record("ready", event={"name": "a-service-with-a-long-name.0"})
    assert text(made).endswith("  a-service-with-a-long-name.0  ready")


def test_text_line_is_followed_by_traceback() -> None:
    lines = text(record("a bug", error=raised())).splitlines()
    assert lines[0].endswith("  a bug")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: broken"


@pytest.mark.parametrize(
    ("level", "colour"),
    [
        (logging.INFO, ""),
        (logging.WARNING, "\x1b[33m"),
        (logging.ERROR, "\x1b[31m"),
        (logging.CRITICAL, "\x1b[31m"),
    ],
)
def test_text_line_colours(level: int, colour: str) -> None:
    made = record("ready", level=level)
    assert text(made, has_colours=True).endswith(f"  {colour}ready\x1b[0m")
    assert "\x1b" not in text(made)


def test_journal_line_has_level_and_no_time() -> None:
    """On each of its lines."""
    made = record("a bug", level=logging.ERROR, error=raised())
    lines = JournalFormatter("supervisor").format(made).splitlines()
    assert lines[0] == "<3>supervisor    a bug"
    assert lines[-1] == "<3>ValueError: broken"
    assert all(line.startswith("<3>") for line in lines)


@pytest.mark.parametrize("is_journal", [True, False])
def test_log_format_of_standard_error_in_a_journal(is_journal: bool) -> None:
    """The variable names the pipe, as if journald read it."""
    program = (
        "from trio_supervisor.process.logs import log_format\n"
        "found = os.fstat(2)\n"
        f"inode = found.st_ino + {int(not is_journal)}\n"
        "os.environ['JOURNAL_STREAM'] = f'{found.st_dev}:{inode}'\n"
        "print(log_format('text'), log_format('json'))\n"
        "configure_logging(log_format('text'), 'me'); log.warning('news')\n"
    )
    done = run(program, stderr=subprocess.PIPE)
    assert done.stdout == ("journal json\n" if is_journal else "text json\n")
    assert (done.stderr == "<4>me            news\n") == is_journal


def test_json_line_has_fields() -> None:
    assert fields(record("ready in %d ms", 143)) == {
        "time": "2024-02-29T23:59:58.007Z",
        "level": "info",
        "name": "supervisor",
        "message": "ready in 143 ms",
    }


def test_json_line_has_fields_of_event() -> None:
    event = {"event": "exited", "name": "web.0", "process_id": 4711, "returncode": -9}
    made = record("exited", level=logging.WARNING, event=event)
    assert event.items() <= fields(made).items()
    assert fields(made)["level"] == "warning"


def test_json_line_names_the_trace_of_the_call() -> None:
    trace = CurrentTrace(TraceContext("4b" * 16, "00f067aa0ba902b7", False))
    with trace.entered():
        found = fields(record("x", event={"event": "reloading"}))
        assert found["trace_id"] == "4b" * 16
        assert found["span_id"] == "00f067aa0ba902b7"
        assert found["event"] == "reloading"
        trace.is_over = True
        assert "trace_id" not in fields(record("x"))


def test_json_line_unsupported_value_becomes_text() -> None:
    """Otherwise the line would be lost."""
    made = record("x", event={"path": raised()})
    assert fields(made)["path"] == "broken"


def test_event_extra_of_other_type_is_ignored() -> None:
    made = record("x", event="click")
    assert fields(made)["message"] == "x"
    assert text(made).endswith("  supervisor    x")


def test_json_line_has_traceback_field() -> None:
    traceback = fields(record("a bug", error=raised()))["traceback"]
    assert isinstance(traceback, str)
    assert traceback.endswith("ValueError: broken")


@pytest.mark.parametrize("format_", FORMATS)
def test_configure_logging_levels(
    format_: str,
) -> None:
    """In a process of its own, for it sets up the root logger."""
    program = (
        "import logging, sys\n"
        "from trio_supervisor.process.logs import configure_logging\n"
        "configure_logging('text')\n"  # twice: no line is doubled
        "configure_logging(sys.argv[1], 'controller')\n"
        "ours = logging.getLogger('trio_supervisor.controller')\n"
        "for logger in ours, logging.getLogger('other'):\n"
        "    logger.debug('quiet'); logger.info('news'); logger.warning('trouble')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, format_],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("{") == (format_ == "json") for line in lines)
    words = [re.findall("news|trouble", line) for line in lines]
    assert words == [["news"], ["trouble"], ["trouble"]]
    assert all("controller" in line for line in lines)


@pytest.mark.parametrize("value", ["caf\udce9", "\ud800", 2**64])
def test_json_line_falls_back_to_json_module(
    value: object,
) -> None:
    """For example for a file name that is not UTF-8."""
    assert fields(record("%s", value, event={"value": value}))["value"] == value


def run(program: str, **arguments: Any) -> subprocess.CompletedProcess[str]:
    """In a process of its own, for it sets up the root logger."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PREAMBLE + program],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
        **arguments,
    )


PREAMBLE = """
import atexit, io, logging, os, sys
from trio_supervisor.process.logs import configure_logging
log = logging.getLogger("trio_supervisor")
"""
MANY_LINES = "for number in range(20_000): log.info('line %d', number)\n"


def test_logging_does_not_block_on_unread_pipe() -> None:
    """Neither does the exit of the process, with 1 MB in an unread pipe."""
    reading, writing = os.pipe()
    try:
        program = f"configure_logging('text')\n{MANY_LINES}print('done')"
        began = time.monotonic()
        assert run(program, stderr=writing).stdout == "done\n"
        assert time.monotonic() - began < 30
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize(
    "end",
    [
        pytest.param("sys.exit(0)", id="an exit"),
        # As at the end of a child of the fork server.
        pytest.param("atexit._run_exitfuncs(); os._exit(0)", id="exit handlers only"),
        pytest.param(
            "child = os.fork()\n"
            "if child:\n"
            "    os.waitpid(child, 0)\n"
            "else:\n"
            "    atexit._run_exitfuncs()\n"
            "os._exit(0)",
            id="of a process that forked",
        ),
    ],
)
def test_log_is_written_before_process_exits(end: str, tmp_path: Path) -> None:
    """Completely, in order, and without duplicates."""
    program = f"configure_logging('text')\n{MANY_LINES}"
    if "fork" in end:
        program += "logging.getLogger().handlers[0].flush()\n"
    path = tmp_path / "log"
    with path.open("wb") as file:
        run(program + end, stderr=file)
    lines = path.read_text().splitlines()
    assert [int(line.split()[-1]) for line in lines] == list(range(20_000))


def test_log_keeps_order_with_other_output() -> None:
    """Such as lines of children."""
    program = (
        "destination = configure_logging('json')\n"
        "for number in range(100):\n"
        "    log.info('line') if number % 2 else destination.put(b'{}\\n')\n"
    )
    lines = run(program, stderr=subprocess.PIPE).stderr.splitlines()
    assert ["line" in line for line in lines] == 50 * [False, True]


def test_non_unicode_text_is_logged() -> None:
    """Such as the name of a file."""
    program = "configure_logging('text'); log.info('%s', 'caf\\udce9')"
    assert run(program, stderr=subprocess.PIPE).stderr.endswith("  caf\\udce9\n")


@pytest.mark.parametrize(
    ("stderr", "result"),
    [
        pytest.param("io.StringIO()", "print(sys.stderr.getvalue())", id="a string"),
        pytest.param("None", "print('news')", id="closed"),
    ],
)
def test_standard_error_without_descriptor_is_written_directly(
    stderr: str, result: str
) -> None:
    """If there is one; the descriptor number may belong to another file."""
    program = (
        f"sys.stderr = {stderr}\n"
        "assert configure_logging('text') is None\n"
        f"log.info('news')\n{result}\n"
    )
    done = run(program, stderr=subprocess.PIPE)
    assert "news" in done.stdout
    assert done.stderr == ""
