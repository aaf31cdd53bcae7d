"""Collect, keep and pass on the output of all children of a controller."""

from __future__ import annotations

import heapq
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Final, Self

import trio
from attrs import define, field

from trio_supervisor.process.output.attachment import Attachment, ProcessChange
from trio_supervisor.process.output.blocks import Block, Origin, Piece, Stream
from trio_supervisor.process.output.console import Console, open_console
from trio_supervisor.process.output.destination import Destination
from trio_supervisor.process.output.entries import Entry, entry_of
from trio_supervisor.process.output.files import OutputFiles
from trio_supervisor.process.output.log_services import LogServices
from trio_supervisor.process.output.pipes import Pipe, PipeEnlarger, open_pipe
from trio_supervisor.process.output.pump import Pump, Sink
from trio_supervisor.process.output.rendering import Form, renderer_of
from trio_supervisor.process.output.rotation import NEVER, RotationPlan
from trio_supervisor.process.output.subscription import Subscription
from trio_supervisor.process.output.tail import OutputLine, Tail
from trio_supervisor.process.output.terminal import (
    SIZE,
    LineEnds,
    open_terminal,
    resize,
    write_keys,
)
from trio_supervisor.tasks import ProtectedNursery, open_nursery

# How long a blocked destination may delay the controller's exit [s].
_FLUSH_TIMEOUT: Final = 2.0
# What is kept of the latest output to a terminal: prompts have no newline [bytes].
_LATEST: Final = 2048


@define(eq=False)
class ChildOutput:
    """Output of one process; made by `OutputHub.open`.

    As a context manager, it is closed at the end of the block.
    """

    name: str
    _hub: OutputHub
    _pipes: tuple[Pipe, ...]
    """Of standard output and error; one, of a terminal, is for both."""
    _sinks: tuple[Sink, Sink]
    _files: tuple[str | None, str | None] = (None, None)
    _origin: Origin | None = field(default=None, init=False)
    _pumps: list[Pump] = field(factory=list, init=False)
    _is_closed: bool = field(default=False, init=False)
    _has_exited: bool = field(default=False, init=False)
    _typing: trio.Lock = field(factory=trio.Lock, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def has_terminal(self) -> bool:
        """Whether the process writes to a terminal."""
        return len(self._pipes) == 1

    async def type(self, keys: bytes) -> bool:
        """Write *keys* to its terminal; return False if it has none.

        Waits for as long as the program does not read.
        """
        descriptor = self._pumps[0].reading if self._pumps else None
        if descriptor is None or not self.has_terminal:
            await trio.lowlevel.checkpoint()
            return False
        async with self._typing:  # of several at once, one after another
            await write_keys(descriptor, keys)
        return True

    def resize(self, size: tuple[int, int]) -> None:
        """Set lines and columns of its terminal, if it has one."""
        descriptor = self._pumps[0].reading if self._pumps else None
        if descriptor is not None and self.has_terminal:
            resize(descriptor, size)

    @property
    def descriptors(self) -> tuple[int, int]:
        """The descriptors for standard output and error of the process."""
        return self._pipes[0].writing, self._pipes[-1].writing

    def started(
        self, process_id: int, *, generation: int = 1, incarnation: int = 1
    ) -> None:
        """Start reading: the process has inherited `descriptors`, close them here."""
        self._origin = Origin(
            name=self.name,
            process_id=process_id,
            generation=generation,
            incarnation=incarnation,
        )
        streams: tuple[Stream, Stream] = ("stdout", "stderr")
        for stream, pipe, sink in zip(streams, self._pipes, self._sinks, strict=False):
            os.close(pipe.writing)
            self._pumps.append(
                self._hub.start(
                    pipe.reading,
                    self._origin,
                    stream,
                    sink,
                    is_terminal=self.has_terminal,
                )
            )
        self._tell(is_running=True)

    @property
    def readings(self) -> list[tuple[Stream, int, str | None, Form]]:
        """The read ends of the pipes: stream, descriptor, file, and form."""
        streams: tuple[Stream, Stream] = ("stdout", "stderr")
        found = zip(streams, self._pumps, self._files, strict=False)
        return [
            (stream, pump.reading, path, self._hub.form)
            for stream, pump, path in found
            if pump.reading is not None
        ]

    def last_lines(self, count: int) -> list[OutputLine]:
        """Return the last *count* lines of this process."""
        if self._origin is None:
            return []
        return self._hub.tail_of(self.name).last(count, self._origin)

    def finish(self) -> None:
        """Read what is in the pipes, without waiting; call it after the process exited.

        `last_lines` is then complete. Output of other processes that have inherited
        the pipes is read until they close them.
        """
        for pump in self._pumps:
            pump.finish()
        if not self._has_exited:
            self._has_exited = True
            self._tell(is_running=False)

    def _tell(self, *, is_running: bool) -> None:
        if self._origin is not None:
            change = ProcessChange(
                self._origin.process_id, is_running, self.has_terminal
            )
            self._hub.tell_attached(self._origin, change)

    def close(self) -> None:
        """Read what is in the pipes, then close them. May be called again.

        Processes that still write to the pipes get SIGPIPE.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._origin is None:  # the process was never started
            for pipe in self._pipes:
                os.close(pipe.reading)
                os.close(pipe.writing)
        for pump in self._pumps:
            pump.stop()


@define(eq=False)
class OutputHub:
    """Reads, keeps and passes on output of children; made by `open_output_hub`."""

    _form: Form
    _console: Console
    _nursery: ProtectedNursery
    _files: OutputFiles = field(factory=OutputFiles, init=False)
    _log_services: LogServices = field(factory=LogServices, init=False)
    _pipe_enlarger: PipeEnlarger = field(factory=PipeEnlarger, init=False)
    _pumps: set[Pump] = field(factory=set, init=False)
    _tails: defaultdict[str, Tail] = field(
        factory=lambda: defaultdict(Tail), init=False
    )
    _subscriptions: set[Subscription] = field(factory=set, init=False)
    _attachments: defaultdict[str, set[Attachment]] = field(
        factory=lambda: defaultdict(set), init=False
    )
    """By name of the child; only those that have any."""
    _sizes: dict[str, tuple[int, int]] = field(factory=dict, init=False)
    """Of the terminals of children with attachments."""
    _latest: dict[str, bytes] = field(factory=dict, init=False)
    """Latest output to the terminal of each child."""

    @property
    def form(self) -> Form:
        """Form of the lines in the output of this process."""
        return self._form

    def open(
        self,
        name: str,
        *,
        stdout: str | None = None,
        stderr: str | None = None,
        log_to: str | None = None,
        form: Form | None = None,
        has_terminal: bool = False,
        file_form: Form = "raw",
        rotation: RotationPlan = NEVER,
    ) -> ChildOutput:
        """Create the pipes for the next process of the child *name*.

        Args:
            stdout: File for its standard output, byte for byte; None: *log_to*. The
                file stays open until `forget`.
            stderr: The same for its standard error; may be the same file.
            log_to: Log service; None: the output of this process.
            form: Form in the output of this process; None: that of the hub.
            has_terminal: Whether it writes to a terminal instead of pipes.
            file_form: Form of the lines in these files.
            rotation: When these files are rotated; the latest call decides.

        Raises:
            SpecError: a file cannot be written.
            OSError: too many files are open.
        """

        def sink(stream: Stream, path: str | None) -> Sink:
            if path is not None:
                return self._file_sink(name, stream, path, file_form, rotation)
            if log_to is not None:
                return self._log_services.open(log_to, name)
            return self._console.sink(name, stream, form or self._form)

        sinks = sink("stdout", stdout), sink("stderr", stderr)
        if has_terminal:
            terminal = (open_terminal(self._sizes.get(name, SIZE)),)
            return ChildOutput(name, self, terminal, sinks, (stdout, stderr))
        with ExitStack() as stack:
            first = open_pipe()
            for descriptor in first:
                stack.callback(os.close, descriptor)
            pipes = (first, open_pipe())
            stack.pop_all()
        return ChildOutput(name, self, pipes, sinks, (stdout, stderr))

    def tail(self, names: Collection[str] | None, count: int) -> list[Entry]:
        """Return the last *count* lines of all these children together, by time.

        Call `subscribe` before the next checkpoint to miss no line in between.

        Args:
            names: None: all children. Unknown names are ignored.
        """
        tails = [
            tail for name, tail in self._tails.items() if names is None or name in names
        ]
        lines: Iterator[tuple[Block, Piece]] = heapq.merge(
            *(tail.newest_first() for tail in tails),
            key=lambda line: line[0].time,
            reverse=True,
        )
        newest = [entry_of(*line) for line in islice(lines, max(0, count))]
        return newest[::-1]

    def subscribe(self, names: Collection[str] | None) -> Subscription:
        """Return a subscription to new lines, of *names* or of all children."""
        subscription = Subscription(names, self._subscriptions.discard)
        self._subscriptions.add(subscription)
        return subscription

    def attach(self, name: str, generation: int) -> Attachment:
        """Return what the child *name* of that generation writes from now on.

        Of a terminal, it begins with the latest output, from a beginning of a line on.
        """
        attachment = Attachment(name, generation, self._leave)
        self._attachments[name].add(attachment)
        if latest := self._latest.get(name):
            attachment.offer(latest)
        return attachment

    def set_size(self, name: str, size: tuple[int, int]) -> None:
        """Have later processes of *name* begin with *size* while one is attached."""
        if name in self._attachments:
            self._sizes[name] = size

    def tell_attached(self, origin: Origin, item: bytes | ProcessChange) -> None:
        """Pass *item* on to those that are attached to the child that it is of."""
        for attachment in self._attachments.get(origin.name, ()):
            if attachment.generation == origin.generation:
                attachment.offer(item)

    def _leave(self, attachment: Attachment) -> None:
        left = self._attachments[attachment.name]
        left.discard(attachment)
        if not left:
            del self._attachments[attachment.name]
            self._sizes.pop(attachment.name, None)

    def _on_bytes(self, origin: Origin, data: bytes) -> None:
        if origin.name in self._attachments:
            self.tell_attached(origin, data)

    def _on_terminal_bytes(self, origin: Origin, data: bytes) -> None:
        self._latest[origin.name] = _latest_of(self._latest.get(origin.name, b""), data)
        self._on_bytes(origin, data)

    def reopen(self) -> None:
        """Open all files again, after they were rotated."""
        self._files.reopen()

    def restore(self) -> list[str]:
        """Recreate removed files; see `OutputFiles.restore`."""
        return self._files.restore()

    def forget(self, name: str) -> None:
        """Release what is kept for the child *name*, which will not come back."""
        self._tails.pop(name, None)
        self._latest.pop(name, None)
        self._files.release(name)
        self._log_services.release(name)
        for attachment in self._attachments.get(name, ()):
            attachment.close()

    async def flush(self) -> None:
        """Wait until all output is written, or writing fails. May be cancelled."""
        async with open_nursery() as nursery:
            for destination in {
                *self._console.destinations,
                *self._files.destinations,
                *self._log_services.destinations,
            }:
                nursery.start_soon(destination.flush)

    def tail_of(self, name: str) -> Tail:
        """Return the last lines of the child *name*, over all of its processes."""
        return self._tails[name]

    def start(
        self,
        descriptor: int,
        origin: Origin,
        stream: Stream,
        sink: Sink,
        *,
        is_terminal: bool = False,
    ) -> Pump:
        """Read from *descriptor* from now on, and close it at the end."""
        pump = Pump(
            descriptor,
            origin,
            stream,
            sink,
            self._record,
            self._pipe_enlarger,
            LineEnds() if is_terminal else None,
            self._on_terminal_bytes if is_terminal else self._on_bytes,
        )
        self._pumps.add(pump)
        self._nursery.start_soon(self._run, pump)
        return pump

    def stop(self) -> None:
        """Read what is in the pipes, then stop reading."""
        for pump in self._pumps:
            pump.stop()
        for subscription in self._subscriptions:
            subscription.close()
        for attachments in self._attachments.values():
            for attachment in attachments:
                attachment.close()

    async def _run(self, pump: Pump) -> None:
        try:
            await pump.run()
        finally:
            self._pumps.discard(pump)

    async def close(self) -> None:
        """Write the remaining output, for up to 2 s, then close everything."""
        with trio.move_on_after(_FLUSH_TIMEOUT, shield=True):
            await self.flush()
        self._files.close()
        self._log_services.close()
        self._console.close()

    def _record(self, block: Block) -> None:
        self._tails[block.origin.name].add(block)
        for subscription in self._subscriptions:
            subscription.offer(block)

    def _file_sink(
        self,
        name: str,
        stream: Stream,
        path: str,
        form: Form,
        rotation: RotationPlan,
    ) -> Sink:
        destination = self._files.open(path, name, stream, rotation)
        render = renderer_of(form, name)
        if form != "raw":
            return Sink(destination, render)
        return Sink(destination, render, partial(self._files.has_one_user, path))


def _latest_of(latest: bytes, data: bytes) -> bytes:
    """Return the last lines of *latest* and *data*, the incomplete one included."""
    both = latest + data[-_LATEST:]
    if len(both) <= _LATEST:
        return both
    both = both[-_LATEST:]
    return both[both.find(b"\n") + 1 :]


@asynccontextmanager
async def open_output_hub(
    form: Form = "text",
    *,
    stdout: Destination | None = None,
    stderr: Destination | None = None,
) -> AsyncIterator[OutputHub]:
    """Pass on the output of children within the block.

    A cancellation from outside does not stop the reading, since a child that is being
    stopped would block in a write. At the end, the pipes are read once more and the
    remaining output is written, for up to 2 s.

    Args:
        form: Form of the lines in the output of this process.
        stdout: Destination of standard output; None: descriptor 1.
        stderr: None: descriptor 2. Pass that of `configure_logging` to keep the order
            of log and output.
    """
    console = open_console(form, stdout, stderr)
    hub: OutputHub | None = None
    try:
        async with open_nursery() as nursery:
            hub = OutputHub(form, console, nursery)
            try:
                yield hub
            finally:
                hub.stop()
    finally:
        if hub is not None:
            await hub.close()
