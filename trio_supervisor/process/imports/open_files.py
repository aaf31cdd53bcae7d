"""Close what a forked child has opened, as an interpreter does that is torn down.

A forked child ends by ``os._exit``, since a teardown would copy every page that it
shares with the fork server. The objects of the import are frozen (`gc.freeze`), so that
the collector's list holds only what this process made: that is looked through for
files, and for objects with a ``__del__`` (a ZipFile, a shelf, a temporary file), which
Python finalizes when it exits.
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
# These hold nothing back.
_UNBUFFERED: Final = (io.FileIO, io.BytesIO, io.StringIO, io.BufferedReader)
# What runs the target goes on in other threads until the process is gone.
_RUNTIME: Final = frozenset(
    {"anyio", "asyncio", "concurrent", "threading", "trio", "trio_supervisor", "uvloop"}
)
# CPython waits 1 s for a file that another thread is using when it exits.
_PATIENCE: Final = 5.0


class ImportedObjects:
    """Files and finalizable objects that an import has made; not a child's to close."""

    def __init__(self) -> None:
        self._known: dict[int, weakref.ref[Any] | None] = {}
        self._files: list[weakref.ref[Any]] = []

    def find(self) -> None:
        """Find them, and write what the files hold back: a child must not do so again.

        A pipe that is full is left alone.
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
        """The files that are still there, the outermost first."""
        files = [reference() for reference in reversed(self._files)]
        return [file for file in files if file is not None]


def close_files(imported: ImportedObjects) -> None:
    """Write and close what this process has opened; write what the import has opened.

    A file that another thread keeps locked is given up on after a while, with a line on
    standard error.
    """
    standard, known = _standard_streams(), dict[type, bool]()
    made = [
        item
        for generation in range(3)
        # The outermost first: it was made after what it writes to.
        for item in reversed(_finalizable(gc.get_objects(generation), known))
        if item not in imported and id(item) not in standard
    ]
    shared = [file for file in imported.files if id(file) not in standard]
    files = [item for item in made if _is_file(item)]
    # What has a __del__ may write to a file yet, as a ZipFile does.
    steps = [_finalizer(item) for item in made if not _is_file(item)]
    steps += [_flusher(item) for item in [*files, *shared]]
    steps += [_closer(item) for item in files]
    if steps:
        _run(steps)


def _finalizable(objects: Iterable[Any], known: dict[type, bool]) -> list[Any]:
    """Return those of *objects* that do something when they are finalized.

    Args:
        known: Which types do; what is found is added.
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
            # Not of a stand-in that answers to any name.
            item = getattr(item, "buffer", None) if _is_file(item) else None
    return found


def _can_be_written(file: Any) -> bool:
    """Whether a write to *file* would not block."""
    try:
        poll = select.poll()
        poll.register(file.fileno(), select.POLLOUT)
        return bool(poll.poll(0))
    except (AttributeError, OSError, TypeError, ValueError):
        return True  # no descriptor: nothing that could be full


def _flusher(file: Any) -> Callable[[], object]:
    def flush() -> None:
        try:
            if not file.closed and file.writable():
                file.flush()
        except Exception as exc:
            _say(f"could not write {_name(file)}: {exc}")

    return flush


def _closer(file: Any) -> Callable[[], object]:
    def close() -> None:
        with suppress(Exception):  # said when it was flushed
            file.close()

    return close


def _finalizer(item: Any) -> Callable[[], object]:
    def finalize() -> None:
        try:
            type(item).__del__(item)
        except BaseException as exc:
            kind = type(item).__qualname__
            _say(f"exception ignored in {kind}.__del__: {type(exc).__name__}: {exc}")

    return finalize


def _run(steps: list[Callable[[], object]]) -> None:
    """Run *steps*; stop waiting once one of them takes too long.

    In a thread: a lock that another thread holds would keep the main thread for good.
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
        thread.join(_PATIENCE)
        if thread.is_alive() and done == before:
            _say("a file is in use by another thread; not everything was written")
            return


def _name(file: Any) -> str:
    return str(getattr(file, "name", None) or type(file).__name__)


def _say(text: str) -> None:
    with suppress(Exception):
        os.write(2, f"{text}\n".encode("utf-8", "replace"))
