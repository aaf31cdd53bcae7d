"""Our own standard output and error, as children's lines are written to them."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from attrs import define

from trio_supervisor.process.output.blocks import Stream
from trio_supervisor.process.output.destination import Destination
from trio_supervisor.process.output.pump import Sink
from trio_supervisor.process.output.rendering import Form, notice_of, renderer_of

_STDOUT: Final = 1
_STDERR: Final = 2


def has_colours(descriptor: int) -> bool:
    """Whether a descriptor is a terminal that may be coloured: see no-color.org."""
    is_dumb = os.environ.get("TERM") == "dumb"
    return os.isatty(descriptor) and not is_dumb and not os.environ.get("NO_COLOR")


@define(eq=False)
class Console:
    """Both; made by `open_console`."""

    _stdout: Destination
    _stderr: Destination
    _own: list[Destination]
    """Those that end with it."""

    @property
    def destinations(self) -> set[Destination]:
        """One or two: both may be the same terminal, or the same pipe."""
        return {self._stdout, self._stderr}

    def sink(self, name: str, stream: Stream, form: Form) -> Sink:
        """Return where *stream* of the child *name* goes."""
        destination = self._stdout if stream == "stdout" else self._stderr
        descriptor = destination.descriptor
        render = renderer_of(
            form,
            name,
            is_terminal=os.isatty(descriptor),
            has_colours=has_colours(descriptor),
        )
        return Sink(destination, render)

    def close(self) -> None:
        """End those that are not somebody else's, each once it is written."""
        for destination in self._own:
            destination.close()


def open_console(
    form: Form, stdout: Destination | None, stderr: Destination | None
) -> Console:
    """Make what is not given, of descriptors 1 and 2."""
    own: list[Destination] = []

    def make(descriptor: int) -> Destination:
        is_closed = True
        with suppress(OSError):
            os.fstat(descriptor)
            is_closed = False
        if is_closed:  # the number may come to be that of some other file
            descriptor = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        made = Destination(descriptor, notice_of(form), is_owner=is_closed)
        own.append(made)
        return made

    stderr = stderr or make(_STDERR)
    if stdout is None:
        # In one queue, or what was printed first might come second.
        stdout = stderr if _is_same(_STDOUT, stderr.descriptor) else make(_STDOUT)
    return Console(stdout, stderr, own)


def _is_same(one: int, other: int) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(one), os.fstat(other))
    return False
