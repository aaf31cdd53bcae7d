"""Flush and close the files that a forked child has opened, before it exits.

A forked child exits through ``os._exit``, since an interpreter teardown would copy
every page that it shares with the fork server. The objects of the import are frozen
(`gc.freeze`), so the garbage collector's lists hold only objects of this process. They
are searched for files, and for objects with a ``__del__`` (a ZipFile, a shelf, a
temporary file), which Python would finalize at exit.
"""

from __future__ import annotations

import gc
import io
import os
import select
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FunctionType
from typing import Any, Final

_IO_BASE: Final[type] = io.IOBase.__mro__[1]
# These have no write buffer.
_UNBUFFERED: Final = (io.FileIO, io.BytesIO, io.StringIO, io.BufferedReader)
# Packages that run the target: their threads keep running until the process exits.
_RUNTIME: Final = frozenset(
    {"anyio", "asyncio", "concurrent", "threading", "trio", "trio_supervisor", "uvloop"}
)
# How long to wait for a file that another thread has locked; CPython waits 1 s [s].
_LOCKED_FILE_TIMEOUT: Final = 5.0


class ImportedObjects:
    """Files and finalizable objects of an import, which a child must not close."""

    def __init__(self) -> None:
        self._known: dict[int, weakref.ref[Any] | None] = {}
        self._files: list[weakref.ref[Any]] = []

    def find(self) -> None:
        """Find them, and flush the files, so that no child writes their buffers again.

        A full pipe is not flushed, since that would block.
        """
        for item in _finalizable(gc.get_objects(), {}):
            reference = None
            with suppress(TypeError):
                reference = weakref.ref(item)
            self._known[id(item)] = reference
            if reference is not None and _is_file(item):
                self._files.append(reference)
                if _can_be_written(item):
                    with suppress(Exception):
                        item.flush()

    def __contains__(self, item: object) -> bool:
        if id(item) not in self._known:
            return False
        reference = self._known[id(item)]
        return reference is None or reference() is item

    @property
    def files(self) -> list[Any]:
        """The files that still exist, wrappers before the files they write to."""
        files = [reference() for reference in reversed(self._files)]
        return [file for file in files if file is not None]


def close_files(imported: ImportedObjects) -> None:
    """Flush and close the files of this process; flush those of the import.

    A file that another thread keeps locked is skipped after 5 s, with a line on
    standard error.
    """
    standard, known = _standard_streams(), dict[type, bool]()
    made = [
        item
        for generation in range(3)
        # Newest first: a wrapper is created after the file it writes to.
        for item in reversed(_finalizable(gc.get_objects(generation), known))
        if item not in imported and id(item) not in standard
    ]
    shared = [file for file in imported.files if id(file) not in standard]
    files = [item for item in made if _is_file(item)]
    # Finalizers first: a ZipFile, for example, still writes to its file.
    steps = [_finalizer(item) for item in made if not _is_file(item)]
    steps += [_flusher(item) for item in [*files, *shared]]
    steps += [_closer(item) for item in files]
    if steps:
        _run(steps)


def _finalizable(objects: Iterable[Any], known: dict[type, bool]) -> list[Any]:
    """Return those of *objects* whose finalization has an effect.

    Args:
        known: Cache: whether the finalization of a type has an effect.
    """
    found = []
    for item in objects:
        kind = type(item)
        does = known.get(kind)
        if does is None:
            does = known[kind] = _is_finalizable(kind)
        if does:
            found.append(item)
    return found


def _is_finalizable(kind: type) -> bool:
    if issubclass(kind, _IO_BASE):
        return kind not in _UNBUFFERED
    if str(getattr(kind, "__module__", "")).partition(".")[0] in _RUNTIME:
        return False
    return any(
        isinstance(vars(base).get("__del__"), FunctionType)
        for base in kind.__mro__
        if base is not object
    )


def _is_file(item: object) -> bool:
    return issubclass(type(item), _IO_BASE)


def _standard_streams() -> set[int]:
    found: set[int] = set()
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        item: Any = stream
        while item is not None and id(item) not in found:
            found.add(id(item))
            # Only of real files: a mock answers to any attribute name.
            item = getattr(item, "buffer", None) if _is_file(item) else None
    return found


def _can_be_written(file: Any) -> bool:
    """Return whether a write to *file* would not block."""
    try:
        poll = select.poll()
        poll.register(file.fileno(), select.POLLOUT)
        return bool(poll.poll(0))
    except (AttributeError, OSError, TypeError, ValueError):
        return True  # no descriptor, so no pipe that could be full


def _flusher(file: Any) -> Callable[[], object]:
    def flush() -> None:
        try:
            if not file.closed and file.writable():
                file.flush()
        except Exception as exc:
            _report(f"cannot write {_name(file)}: {exc}")

    return flush


def _closer(file: Any) -> Callable[[], object]:
    def close() -> None:
        with suppress(Exception):  # reported by the flush
            file.close()

    return close


def _finalizer(item: Any) -> Callable[[], object]:
    def finalize() -> None:
        try:
            type(item).__del__(item)
        except BaseException as exc:
            kind = type(item).__qualname__
            _report(f"exception ignored in {kind}.__del__: {type(exc).__name__}: {exc}")

    return finalize


def _run(steps: list[Callable[[], object]]) -> None:
    """Run *steps*; stop waiting when one of them takes too long.

    In a thread: a lock held by another thread would block the main thread forever.
    """
    done = 0

    def run() -> None:
        nonlocal done
        for step in steps:
            step()
            done += 1

    thread = threading.Thread(target=run, name="close files", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no more threads
        run()
        return
    while thread.is_alive():
        before = done
        thread.join(_LOCKED_FILE_TIMEOUT)
        if thread.is_alive() and done == before:
            _report(
                f"a file is locked by another thread for {_LOCKED_FILE_TIMEOUT:g} s; "
                f"exiting without writing all buffers"
            )
            return


def _name(file: Any) -> str:
    return str(getattr(file, "name", None) or type(file).__name__)


def _report(text: str) -> None:
    with suppress(Exception):
        os.write(2, f"{text}\n".encode("utf-8", "replace"))
