"""Log lines, for people and for programs."""

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
    JsonFormatter,
    TextFormatter,
)

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
    """An error that has a traceback."""
    try:
        raise ValueError("broken")
    except ValueError as exc:
        return exc


def test_a_line_for_people_has_time_source_and_message() -> None:
    line = text(record("ready in %d ms", 143))
    assert re.fullmatch(r"\d\d:59:58\.007  supervisor    ready in 143 ms", line)


def test_the_source_is_the_events_where_there_is_one() -> None:
    made = record("ready", event={"event": "ready", "name": "web.0"})
    assert text(made).endswith("  web.0         ready")


def test_a_source_longer_than_its_column_is_not_cut() -> None:
    made = record("ready", event={"name": "a-service-with-a-long-name.0"})
    assert text(made).endswith("  a-service-with-a-long-name.0  ready")


def test_a_traceback_follows_its_line() -> None:
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
def test_colours_are_for_terminals_only(level: int, colour: str) -> None:
    made = record("ready", level=level)
    assert text(made, has_colours=True).endswith(f"  {colour}ready\x1b[0m")
    assert "\x1b" not in text(made)


def test_a_line_for_programs_has_fields() -> None:
    assert fields(record("ready in %d ms", 143)) == {
        "time": "2024-02-29T23:59:58.007Z",
        "level": "info",
        "name": "supervisor",
        "message": "ready in 143 ms",
    }


def test_the_fields_of_an_event_are_fields() -> None:
    event = {"event": "exited", "name": "web.0", "process_id": 4711, "returncode": -9}
    made = record("exited", level=logging.WARNING, event=event)
    assert event.items() <= fields(made).items()
    assert fields(made)["level"] == "warning"


def test_what_json_has_not_becomes_text() -> None:
    """A line that cannot be written would be lost, and its cause with it."""
    made = record("x", event={"path": raised()})
    assert fields(made)["path"] == "broken"


def test_an_extra_called_event_of_another_program_is_not_ours() -> None:
    made = record("x", event="click")
    assert fields(made)["message"] == "x"
    assert text(made).endswith("  supervisor    x")


def test_a_traceback_is_a_field() -> None:
    traceback = fields(record("a bug", error=raised()))["traceback"]
    assert isinstance(traceback, str)
    assert traceback.endswith("ValueError: broken")


@pytest.mark.parametrize("format_", FORMATS)
def test_a_process_logs_ours_in_full_and_others_warnings_to_stderr(
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
def test_what_the_fast_library_refuses_is_no_reason_to_lose_a_line(
    value: object,
) -> None:
    """Such as the name of a file that is not UTF-8."""
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


def test_who_logs_does_not_wait_for_who_does_not_read() -> None:
    """A megabyte into a pipe that nobody reads; nor does the end of the process."""
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
def test_what_was_logged_is_written_before_the_process_ends(
    end: str, tmp_path: Path
) -> None:
    """All of it, in order, and once. A file waits for no reader."""
    program = f"configure_logging('text')\n{MANY_LINES}"
    if "fork" in end:
        program += "logging.getLogger().handlers[0].flush()\n"
    path = tmp_path / "log"
    with path.open("wb") as file:
        run(program + end, stderr=file)
    lines = path.read_text().splitlines()
    assert [int(line.split()[-1]) for line in lines] == list(range(20_000))


def test_the_log_keeps_its_order_with_what_else_is_written_there() -> None:
    """Lines of children, for example."""
    program = (
        "destination = configure_logging('json')\n"
        "for number in range(100):\n"
        "    log.info('line') if number % 2 else destination.put(b'{}\\n')\n"
    )
    lines = run(program, stderr=subprocess.PIPE).stderr.splitlines()
    assert ["line" in line for line in lines] == 50 * [False, True]


def test_a_text_that_is_no_unicode_is_logged_all_the_same() -> None:
    """The name of a file, for example."""
    program = "configure_logging('text'); log.info('%s', 'caf\\udce9')"
    assert run(program, stderr=subprocess.PIPE).stderr.endswith("  caf\\udce9\n")


@pytest.mark.parametrize(
    ("stderr", "result"),
    [
        pytest.param("io.StringIO()", "print(sys.stderr.getvalue())", id="a string"),
        pytest.param("None", "print('news')", id="closed"),
    ],
)
def test_a_standard_error_without_a_descriptor_is_written_to_directly(
    stderr: str, result: str
) -> None:
    """Where there is one at all; its number may be that of some other file."""
    program = (
        f"sys.stderr = {stderr}\n"
        "assert configure_logging('text') is None\n"
        f"log.info('news')\n{result}\n"
    )
    done = run(program, stderr=subprocess.PIPE)
    assert "news" in done.stdout
    assert done.stderr == ""
