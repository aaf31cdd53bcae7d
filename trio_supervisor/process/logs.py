"""How a process of this package logs: lines for people, or JSON for programs.

A record may carry ``extra={"event": {...}}``: fields, which JSON lines show as such.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Final

import orjson

TEXT: Final = "text"
JSON: Final = "json"
FORMATS: Final = (TEXT, JSON)

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
        """Return one line, and a traceback behind it where there is one."""
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        stamp = f"{moment}.{int(record.msecs):03}"
        source = str(_event_of(record).get("name", self._source))
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        if self._has_colours:
            colour = _COLOURS.get(record.levelname, "")
            return f"{_DIM}{stamp}{_RESET}  {source:<12}  {colour}{message}{_RESET}"
        return f"{stamp}  {source:<12}  {message}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, name, message, and the event's fields."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self._source = source

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, object] = {
            "time": f"{whole}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "name": self._source,
            "message": record.getMessage(),
            **_event_of(record),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(fields, default=str).decode()
        except TypeError:  # a file's name that is no UTF-8, an integer of over 64 bits
            return json.dumps(fields, default=str)


def _event_of(record: logging.LogRecord) -> dict[str, object]:
    event = getattr(record, "event", None)
    return event if isinstance(event, dict) else {}


def configure_logging(format_: str, source: str = "supervisor") -> None:
    """Have this process log to standard error.

    Args:
        format_: `TEXT` or `JSON`.
        source: Who speaks, where a record does not say.
    """
    handler = logging.StreamHandler(sys.stderr)
    if format_ == JSON:
        handler.setFormatter(JsonFormatter(source))
    else:
        # NO_COLOR: see no-color.org.
        is_terminal = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        handler.setFormatter(TextFormatter(source, has_colours=is_terminal))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("trio_supervisor").setLevel(logging.INFO)
