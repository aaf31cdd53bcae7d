"""Deliver a report to the caller, into a file or into the worker's log.

Ruby's workers accept ``path`` and ``log`` as arguments of their dumps; so do ours.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Coroutine, Mapping
from contextlib import closing
from typing import Final

import orjson
from attrs import define

from trio_supervisor.errors import BadRequestError
from trio_supervisor.link.peer import Answer, Fields, IncomingCall
from trio_supervisor.wire.brief import brief
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.protocol import OPERATIONS

logger = logging.getLogger(__name__)

# An argument of every operation: whether to send intermediate answers.
PROGRESS: Final = "progress"


@define(eq=False)
class QuietCall(IncomingCall):
    """A call whose caller did not request intermediate answers."""

    def progress(self, fields: Fields) -> None:
        """Send nothing: Ruby's clients treat each answer as part of the last one."""


def without_progress(call: IncomingCall) -> IncomingCall:
    """Return *call*, or one that sends no progress if none was requested."""
    if call.arguments.get(PROGRESS) is True:
        return call
    return QuietCall(call.do, call.arguments, call.peer, call._id)


def check_delivery(call: IncomingCall) -> None:
    """Check the arguments of *call* that concern the delivery of the report.

    Raises:
        BadRequestError: ``path`` or ``log`` is empty or not a string, or the format is
            unknown.
    """
    if call.do == "memory_sample":
        shape = call.arguments.get("format")
        if shape not in (None, "json", "text"):
            raise BadRequestError(
                f"format: expected 'json' or 'text', got {brief(shape)}"
            )
    for name in ("path", "log"):
        value = call.arguments.get(name)
        if value is not None and (not isinstance(value, str) or not value):
            raise BadRequestError(
                f"{name}: expected a nonempty text, got {brief(value)}"
            )


def deliver(call: IncomingCall, answer: Answer) -> Answer:
    """Deliver the ``data`` of *answer* as the arguments of *call* say.

    With ``path`` it is written to that file, which must not exist: it is created with
    the worker's user as owner and mode 0600, and no symbolic link is followed. With
    ``log`` it is written to the worker's log, below that title.
    """
    path, title = call.arguments.get("path"), call.arguments.get("log")
    has_report = OPERATIONS[call.do].spec.has_report
    if not has_report or (path is None and title is None):
        return answer
    if path is not None:
        return _write(path, answer)
    return _log(str(title), answer)


async def _write(path: str, answer: Answer) -> Fields:
    from trio_supervisor.diagnostics.heap.unfinished_file import UnfinishedFile

    # Created first: an error is reported before the sampling, not after it.
    try:
        file = UnfinishedFile.create(path)
    except BaseException:
        _close(answer)
        raise
    try:
        _fill(file.descriptor, _data(await _fields_of(answer)))
        file.finish()
    finally:
        file.discard()
    return {"path": path}


def _fill(descriptor: int, data: str) -> None:
    with open(descriptor, "wb", closefd=False) as stream:
        stream.write(data.encode("utf-8", "backslashreplace"))


async def _log(title: str, answer: Answer) -> Fields:
    data = _data(await _fields_of(answer))
    # Without a logging configuration, Python prints warnings and errors only.
    logger.warning("%s\n%s", " ".join(title.split()), data.rstrip())
    return {}


async def _fields_of(answer: Answer) -> Fields:
    return await answer if isinstance(answer, Coroutine) else answer


def _close(answer: Answer) -> None:
    if isinstance(answer, Coroutine):
        with closing(answer):
            pass


def _data(fields: Fields) -> str:
    data = str(fields.get("data", ""))
    return data if data.endswith("\n") else data + os.linesep


def as_ruby_report(fields: Mapping[str, object]) -> str:
    """Return the report of a memory sample as the JSON that Ruby's clients expect.

    It has the totals and aggregates of Ruby's report, and all other fields of ours.
    """
    report: Object = {name: value for name, value in fields.items() if name != "data"}
    totals = {
        name: _amount(value)
        for name in ("total_allocated", "total_retained")
        if isinstance(value := report.pop(name, None), Mapping)
    }
    aggregates = [
        {
            "title": f"By {title}",
            "total": totals["total_retained"],
            "totals": [[group["name"], _amount(group)] for group in groups],
        }
        for title in ("Package", "File", "Location", "Class")
        if (groups := report.pop(f"by_{title.lower()}", None)) is not None
    ]
    return orjson.dumps({**totals, "aggregates": aggregates, **report}).decode()


def _amount(value: Mapping[str, object]) -> Object:
    return {"size": value["memory"], "count": value["count"]}
