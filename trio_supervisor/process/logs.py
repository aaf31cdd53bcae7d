"""Configure logging of a process: text lines for people, or JSON lines.

A record may have ``extra={"event": {...}}``: fields that JSON lines contain.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from typing import Final

import orjson

from trio_supervisor.process.output.destination import Destination
from trio_supervisor.process.output.entries import timestamp
from trio_supervisor.process.output.escaping import (
    escape_json,
    escape_line,
    escape_text,
)
from trio_supervisor.process.output.journal_stream import is_journal
from trio_supervisor.process.output.levels import level_of
from trio_supervisor.process.output.rendering import notice_of
from trio_supervisor.process.output.terminal_kind import has_colours
from trio_supervisor.wire.trace_context import current_context

TEXT: Final = "text"
JSON: Final = "json"
JOURNAL: Final = "journal"
"""Text for a stream to journald; chosen by `log_format`."""
FORMATS: Final = (TEXT, JSON)

_STDERR: Final = 2
# How long unread log output may delay the exit of a process [s].
_FLUSH_TIMEOUT: Final = 1.0
_COLOURS: Final = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}
_DIM: Final = "\x1b[2m"
_RESET: Final = "\x1b[0m"


class TextFormatter(logging.Formatter):
    """``12:00:01.123  worker.2      ready in 143 ms (pid 4711)``."""

    def __init__(self, source: str, *, has_colours: bool) -> None:
        super().__init__()
        self._source = source
        self._has_colours = has_colours

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, followed by the traceback if there is one."""
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        stamp = f"{moment}.{int(record.msecs):03}"
        source, message = self._parts(record)
        if self._has_colours:
            colour = _COLOURS.get(record.levelname, "")
            return f"{_DIM}{stamp}{_RESET}  {source:<12}  {colour}{message}{_RESET}"
        return f"{stamp}  {source:<12}  {message}"

    def _parts(self, record: logging.LogRecord) -> tuple[str, str]:
        """Return the source and the message, with the traceback if there is one."""
        source = escape_line(str(_event_of(record).get("name", self._source)))
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        return source, escape_text(message)


class JournalFormatter(TextFormatter):
    """``<6>worker.2      ready in 143 ms (pid 4711)``, for a stream to journald.

    journald takes the level from the prefix, and has the time itself.
    """

    def __init__(self, source: str) -> None:
        super().__init__(source, has_colours=False)

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, followed by the traceback if there is one."""
        source, message = self._parts(record)
        prefix = f"<{level_of(record.levelno)}>"
        lines = f"{source:<12}  {message}".split("\n")
        return "\n".join(f"{prefix}{line}" for line in lines)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, name, message, and fields of the event.

    While a call with a trace is answered, ``trace_id`` and ``span_id`` as well.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self._source = source

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        fields: dict[str, object] = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "name": self._source,
            "message": record.getMessage(),
            **_event_of(record),
        }
        if (context := current_context()) is not None:
            fields |= {"trace_id": context.trace_id, "span_id": context.span_id}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        try:
            return escape_json(orjson.dumps(fields, default=str).decode())
        except TypeError:  # a file name that is not UTF-8, an integer above 64 bits
            return json.dumps(fields, default=str)


def _event_of(record: logging.LogRecord) -> dict[str, object]:
    event = getattr(record, "event", None)
    return event if isinstance(event, dict) else {}


class QueueHandler(logging.Handler):
    """Writes lines in a thread, so that logging never blocks."""

    def __init__(self, destination: Destination) -> None:
        super().__init__()
        self.destination = destination

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record. It is formatted now, since its arguments may change."""
        try:
            line = self.format(record) + "\n"
            self.destination.put(line.encode("utf-8", "backslashreplace"))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Write queued lines; `logging.shutdown` calls it when the process exits."""
        self.destination.drain(_FLUSH_TIMEOUT)


def log_format(chosen: str) -> str:
    """Return the format for standard error: `JOURNAL` for text if journald reads it."""
    return JOURNAL if chosen == TEXT and is_journal(_STDERR) else chosen


def configure_logging(format_: str, source: str = "supervisor") -> Destination | None:
    """Log to standard error from now on, without ever blocking.

    Return the destination, for other output; None: standard error has no descriptor,
    or is replaced. May be called again.

    Args:
        format_: `TEXT`, `JSON` or `JOURNAL`.
        source: Name in the lines of records that have none.
    """
    root = logging.getLogger()
    destination = _standard_error(root, format_)
    handler: logging.Handler
    if destination is not None:
        handler = QueueHandler(destination)
    elif sys.stderr is not None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = logging.NullHandler()
    if format_ == JSON:
        handler.setFormatter(JsonFormatter(source))
    elif format_ == JOURNAL:
        handler.setFormatter(JournalFormatter(source))
    else:
        is_coloured = destination is not None and has_colours(destination.descriptor)
        handler.setFormatter(TextFormatter(source, has_colours=is_coloured))
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("trio_supervisor").setLevel(logging.INFO)
    return destination


def _standard_error(root: logging.Logger, format_: str) -> Destination | None:
    for handler in root.handlers:
        if isinstance(handler, QueueHandler):  # two could change the order of lines
            return handler.destination
    try:
        descriptor = sys.stderr.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return None
    destination = Destination(
        descriptor, notice_of("json" if format_ == JSON else "text"), idle=None
    )
    destination.begin()
    return destination
