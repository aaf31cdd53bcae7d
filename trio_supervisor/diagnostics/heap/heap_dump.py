"""Write the whole heap as lines of JSON, in a snapshot while the process keeps running.

The first line describes the dump, the last one has the totals; a dump without it is
incomplete. Each line between is one object:

    {"address": 140…, "type": "dict", "module": "builtins", "size": 232,
     "referents": [140…, …], "repr": "…"}

``module`` is the module of the type, ``size`` the shallow size [bytes]; ``repr`` is
written on request, for builtin types.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import orjson
from attrs import define, field

from trio_supervisor.diagnostics.heap.unfinished_file import UnfinishedFile
from trio_supervisor.diagnostics.memory.definitions import module_and_name
from trio_supervisor.diagnostics.memory.fingerprints import Fingerprints, levels_below
from trio_supervisor.diagnostics.memory.heap_walk import tracked_objects
from trio_supervisor.diagnostics.memory.memory_lock import (
    MemoryLock,
    acquire_memory_lock,
)
from trio_supervisor.diagnostics.memory.memory_text import size as size_text
from trio_supervisor.diagnostics.memory.references import references
from trio_supervisor.diagnostics.memory.sizes import Sizes
from trio_supervisor.diagnostics.snapshot.snapshot import (
    Fields,
    Snapshot,
    fork_snapshot,
)
from trio_supervisor.diagnostics.snapshot.snapshot_child import (
    SnapshotReporter,
    write_all,
)
from trio_supervisor.diagnostics.stacks.frames import RunningThread, running_threads
from trio_supervisor.diagnostics.stacks.values import short
from trio_supervisor.wire.memory_reports import HEAP_FORMAT, DumpReport

_BLOCK: Final = 1024 * 1024
"""Bytes per write."""
_SHORT: Final = frozenset(
    map(id, (str, bytes, int, float, complex, bool, type(None), range))
)


@define(eq=False)
class HeapDump:
    """A dump in progress, made by `start`; the caller must `finish` or `abort` it."""

    _lock: MemoryLock
    _file: UnfinishedFile
    snapshot: Snapshot
    """Wait for it before calling `finish`."""

    @classmethod
    def start(cls, path: str, time_box: float, *, with_repr: bool = False) -> HeapDump:
        """Begin a dump to *path*, which must not exist.

        The file is readable by its owner only, and gets its name once it is complete.

        Args:
            time_box: Time limit [s].
            with_repr: Whether to write shortened values of strings and numbers, which
                may contain secrets.

        Raises:
            BusyError: another memory sample or dump of this process is running.
            HeapFileError: *path* exists, or the file cannot be created.
            LowMemoryError, SnapshotError, PlatformError: as `fork_snapshot`.
        """
        lock = acquire_memory_lock("memory dump")
        try:
            file = UnfinishedFile.create(path)
        except BaseException:
            lock.release()
            raise
        try:
            work = partial(write_heap, file.descriptor, with_repr, running_threads())
            snapshot = fork_snapshot(work, time_box, (file.descriptor,))
            del work  # it has the frames of threads
        except BaseException:
            file.discard()
            lock.release()
            raise
        return cls(lock, file, snapshot)

    def finish(self) -> DumpReport:
        """Give the file its name, once the snapshot is over.

        Raises:
            HeapFileError: another file was created at its path.
            SnapshotError: the snapshot failed, for example because the disk is full.
        """
        try:
            result = self.snapshot.result()
            self._file.finish()
        finally:
            self.abort()
        text = f"{size_text(result['size'])} with {result['objects']} objects"
        return DumpReport(
            data=f"{self._file.path}: {text} of {size_text(result['memory'])}",
            path=self._file.path,
            objects=result["objects"],
            memory=result["memory"],
            size=result["size"],
            pause=self.snapshot.pause,
        )

    def abort(self) -> None:
        """Abort the dump and remove its file. Calling it twice is harmless."""
        self.snapshot.close()
        self._file.discard()
        self._lock.release()


def write_heap(
    descriptor: int,
    with_repr: bool,
    threads: Sequence[RunningThread],
    reporter: SnapshotReporter,
) -> Fields:
    """Write all objects and return their totals; in a snapshot."""
    objects = tracked_objects(threads)
    writer = _Writer(descriptor, with_repr)
    writer.put(
        {
            "format": HEAP_FORMAT,
            "process_id": os.getppid(),
            "taken_at": time.time(),
            "python": sys.version.partition(" ")[0],
        }
    )
    seen = Fingerprints()
    for chunk in reporter.chunks(objects):
        for one in chunk:
            writer.put_object(one)
        for level in levels_below(chunk, seen):
            for _, one, _ in level:
                writer.put_object(one)
    total = {"objects": writer.objects, "memory": writer.memory}
    writer.put(total)
    writer.flush()
    os.fsync(descriptor)
    return {**total, "size": os.fstat(descriptor).st_size}


@define(eq=False)
class _Writer:
    _descriptor: int
    _with_repr: bool
    objects: int = field(default=0, init=False)
    memory: int = field(default=0, init=False)
    _sizes: Sizes = field(factory=Sizes, init=False)
    _names: dict[int, tuple[str, str]] = field(factory=dict, init=False)
    _block: bytearray = field(factory=bytearray, init=False)

    def put_object(self, one: Any) -> None:
        """Write the line of one object."""
        type_ = type(one)
        if (names := self._names.get(id(type_))) is None:
            names = self._names[id(type_)] = module_and_name(type_)
        size = self._sizes.of(one)
        self.objects += 1
        self.memory += size
        line = {
            "address": id(one),
            "type": names[1],
            "module": names[0],
            "size": size,
            "referents": list(map(id, references([one]))),
        }
        if self._with_repr and id(type_) in _SHORT:
            line["repr"] = short(one)
        self.put(line)

    def put(self, line: Fields) -> None:
        """Write one line."""
        self._block += orjson.dumps(line)
        self._block += b"\n"
        if len(self._block) >= _BLOCK:
            self.flush()

    def flush(self) -> None:
        """Write the buffer."""
        write_all(self._descriptor, self._block)
        self._block = bytearray()
