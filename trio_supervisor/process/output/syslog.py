"""Write lines as messages of syslog.

The daemon of this machine gets the form of syslog(3), which all of them understand: RFC
3164 without the host. Over the network it is RFC 5424.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

from trio_supervisor.process.output.blocks import Block, Data
from trio_supervisor.process.output.entries import timestamp
from trio_supervisor.process.output.levels import FACILITY, WARNING, levelled
from trio_supervisor.process.output.records import packed
from trio_supervisor.process.output.rendering import dropped_text, in_steps

# Not those of the locale.
_MONTHS: Final = "JanFebMarAprMayJunJulAugSepOctNovDec"
_OURS: Final = "trio_supervisor"
# For elements that have no number registered with IANA: RFC 5612.
_ELEMENT: Final = "trio_supervisor@32473"
# APP-NAME and HOSTNAME of RFC 5424.
_LONGEST_NAME: Final = 48
_LONGEST_HOST: Final = 255
_NOT_PRINTABLE: Final = re.compile(r"[^\x21-\x7e]")


def syslog_renderer(*, is_local: bool) -> Callable[[Block], Iterable[Data]]:
    """Return the renderer of lines, as items of records.

    Args:
        is_local: Whether for the daemon of this machine.
    """
    return _render_local if is_local else partial(_render, _host())


def syslog_notice(*, is_local: bool) -> Callable[[int], bytes]:
    """Return a function that renders a message about dropped lines."""
    return _local_notice if is_local else partial(_notice, _host())


def _render_local(block: Block) -> Iterator[bytes]:
    origin = block.origin
    head = f"{_moment(block.time)} {origin.name}[{origin.process_id}]: ".encode()
    return in_steps(
        packed(b"<%d>%b%b" % (_priority(level), head, line))
        for level, _, line in levelled(block)
    )


def _render(host: str, block: Block) -> Iterator[bytes]:
    origin = block.origin
    element = " ".join(
        (
            _ELEMENT,
            f'worker="{origin.name}"',
            f'service="{origin.service}"',
            f'generation="{origin.generation}"',
            f'incarnation="{origin.incarnation}"',
        )
    )
    name = origin.name[:_LONGEST_NAME]
    process = f"{origin.process_id} {block.stream}"
    head = f"1 {timestamp(block.time)} {host} {name} {process} [{element}] ".encode()
    return in_steps(
        packed(b"<%d>%b%b" % (_priority(level), head, line))
        for level, _, line in levelled(block)
    )


def _local_notice(count: int) -> bytes:
    head = f"<{_priority(WARNING)}>{_moment(time.time())} {_OURS}[{os.getpid()}]: "
    return packed((head + dropped_text(count)).encode())


def _notice(host: str, count: int) -> bytes:
    head = f"<{_priority(WARNING)}>1 {timestamp(time.time())} {host} {_OURS}"
    return packed(f"{head} {os.getpid()} - - {dropped_text(count)}".encode())


def _priority(level: int) -> int:
    return FACILITY * 8 + level


def _moment(seconds: float) -> str:
    """Return the local time as RFC 3164 has it."""
    found = time.localtime(seconds)
    month = _MONTHS[3 * found.tm_mon - 3 : 3 * found.tm_mon]
    clock = time.strftime("%H:%M:%S", found)
    return f"{month} {found.tm_mday:2} {clock}"


def _host() -> str:
    return _NOT_PRINTABLE.sub("", socket.gethostname())[:_LONGEST_HOST] or "-"
