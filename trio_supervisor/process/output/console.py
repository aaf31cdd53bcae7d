"""Write the lines of children to standard output and error of this process."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from attrs import define

from trio_supervisor.process.output.blocks import Stream
from trio_supervisor.process.output.destination import Destination
from trio_supervisor.process.output.journal_stream import is_journal
from trio_supervisor.process.output.pump import Sink
from trio_supervisor.process.output.rendering import Form, notice_of, renderer_of
from trio_supervisor.process.output.terminal_kind import has_colours

_STDOUT: Final = 1
_STDERR: Final = 2


@define(eq=False)
class Console:
    """Standard output and error; made by `open_console`."""

    _stdout: Destination
    _stderr: Destination
    _own: list[Destination]
    """Destinations that are closed with it."""

    @property
    def destinations(self) -> set[Destination]:
        """One or two: both may be the same terminal or pipe."""
        return {self._stdout, self._stderr}

    def sink(self, name: str, stream: Stream, form: Form) -> Sink:
        """Return the sink for *stream* of the child *name*."""
        destination = self._stdout if stream == "stdout" else self._stderr
        descriptor = destination.descriptor
        if form == "journal" and not is_journal(descriptor):
            form = "text"
        render = renderer_of(
            form,
            name,
            is_terminal=os.isatty(descriptor),
            has_colours=has_colours(descriptor),
        )
        return Sink(destination, render)

    def close(self) -> None:
        """Close the own destinations, each once its queue is written."""
        for destination in self._own:
            destination.close()


def open_console(
    form: Form, stdout: Destination | None, stderr: Destination | None
) -> Console:
    """Return a console; destinations not given are made of descriptors 1 and 2."""
    own: list[Destination] = []

    def make(descriptor: int) -> Destination:
        is_closed = True
        with suppress(OSError):
            os.fstat(descriptor)
            is_closed = False
        if is_closed:  # the number may be reused for another file
            descriptor = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        made = Destination(descriptor, notice_of(form), is_owner=is_closed)
        own.append(made)
        return made

    stderr = stderr or make(_STDERR)
    if stdout is None:
        # The same queue for both keeps the order of lines.
        stdout = stderr if _is_same(_STDOUT, stderr.descriptor) else make(_STDOUT)
    return Console(stdout, stderr, own)


def _is_same(one: int, other: int) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(one), os.fstat(other))
    return False
