"""Find the line that an import is at, or was at when its process exited."""

from __future__ import annotations

import os
import re
import sysconfig
from typing import Final, NamedTuple

from attrs import frozen

from trio_supervisor._location import PREFIX
from trio_supervisor.process.spawn.code_source import shown_path

# Read from the end of a report, which grows by a few kilobytes a second [bytes].
_READ_SIZE: Final = 256 * 1024
_PERIODIC: Final = "Timeout"
_RECORDS: Final = (_PERIODIC, "Stack (", "Fatal Python error")
_THREAD: Final = re.compile(r"(Current thread|Thread|Stack) .*\(?most recent call")
_FRAME: Final = re.compile(r'  File "(.*)", line (\d+) in (.+)')
_STDLIB: Final = os.path.join(sysconfig.get_path("stdlib"), "")
_INSTALLED: Final = os.path.join(sysconfig.get_path("purelib"), "")


@frozen(kw_only=True)
class ImportPlace:
    """The line at which an import was last seen."""

    text: str
    """The line of the application, such as ``service.py, line 3``."""
    is_exact: bool
    """Whether this line terminated the process. Otherwise the import was there within
    the last second."""


class _Frame(NamedTuple):
    file: str
    line: int
    function: str


def read_report(report: int) -> str:
    """Return the end of the report so far."""
    try:
        size = os.fstat(report).st_size
        data = os.pread(report, _READ_SIZE, max(0, size - _READ_SIZE))
    except OSError:
        return ""
    return data.decode("utf-8", "backslashreplace")


def last_place(text: str) -> ImportPlace | None:
    """Return the import's line in the newest record of *text*; None: unknown."""
    records: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith(_RECORDS):
            records.append([])
        if records:
            records[-1].append(line)
    for record in reversed(records):
        frames = _stack_of(record)
        for frame in frames:
            if not _is_foreign(frame.file):
                is_exact = not record[0].startswith(_PERIODIC)
                return ImportPlace(text=_text(frames[0], frame), is_exact=is_exact)
    return None


def _stack_of(record: list[str]) -> list[_Frame]:
    """Return the frames of the failing thread, or else of the main thread.

    faulthandler marks the failing thread, and writes the main thread last.
    """
    current: list[_Frame] | None = None
    last: list[_Frame] = []
    for line in record:
        if _THREAD.match(line):
            last = []
            if line.startswith("Current"):
                current = last
        elif match := _FRAME.fullmatch(line):
            last.append(_Frame(match[1], int(match[2]), match[3]))
    return last if current is None else current


def _is_foreign(file: str) -> bool:
    is_stdlib = file.startswith(_STDLIB) and not file.startswith(_INSTALLED)
    return is_stdlib or file.startswith(("<frozen ", PREFIX))


def _text(inner: _Frame, frame: _Frame) -> str:
    text = f"{shown_path(frame.file)}, line {frame.line}"
    if inner != frame and not inner.file.startswith(("<frozen ", PREFIX)):
        text += f" (in {inner.function} of {os.path.basename(inner.file)})"
    return text
