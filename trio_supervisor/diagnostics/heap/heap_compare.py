"""Summarize a heap dump, or compare two or three, in bounded memory.

An object is identified by its address and type. To compare dumps, their objects are
first partitioned by address into temporary files; then the partitions are compared one
by one.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import IO, Any, Final, NamedTuple

import orjson
from attrs import define, evolve, field, frozen

from trio_supervisor.diagnostics.memory.memory_text import (
    describe_comparison,
    describe_summary,
)
from trio_supervisor.diagnostics.memory.sums import Sums
from trio_supervisor.errors import HeapFileError
from trio_supervisor.wire.memory_reports import HEAP_FORMAT, HeapComparison, HeapSummary

_PARTITIONS: Final = 32
_LONGEST: Final = 256 * 1024 * 1024
"""Maximum length of a line [bytes]: a list of ten million items needs it."""
_RECORD: Final = struct.Struct("=QQI")
"""Address, size, and the number of the type."""


class DumpedObject(NamedTuple):
    """One object of a dump."""

    address: int
    type: str
    module: str
    size: int

    @property
    def type_name(self) -> str:
        """The type with its module, except for builtins."""
        return self.type if self.module == "builtins" else f"{self.module}.{self.type}"


@frozen(kw_only=True)
class _Header:
    process_id: int
    taken_at: float


@define(eq=False)
class _DumpReader:
    """Reads one dump from its start to its end."""

    path: str
    _file: IO[bytes]
    header: _Header = field(init=False)
    _number: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        first = self._line()
        if first is None or first.get("format") != HEAP_FORMAT:
            raise HeapFileError(f"{self.path}: not a heap dump of this version")
        self.header = _Header(
            process_id=self._get(first, "process_id", int),
            taken_at=self._get(first, "taken_at", float),
        )

    def objects(self) -> Iterator[DumpedObject]:
        """Yield all objects.

        Raises:
            HeapFileError: a line is invalid, or the last one is missing.
        """
        count = memory = 0
        while (line := self._line()) is not None:
            if "objects" in line:
                self._check_end(line, count, memory)
                return
            one = DumpedObject(
                self._get(line, "address", int),
                self._get(line, "type", str),
                self._get(line, "module", str),
                self._get(line, "size", int),
            )
            if one.address < 0 or one.size < 0:
                raise self._error("a negative number")
            count += 1
            memory += one.size
            yield one
        raise self._error("the last line is missing: the dump is incomplete")

    def _check_end(self, line: dict[str, Any], count: int, memory: int) -> None:
        told = self._get(line, "objects", int), self._get(line, "memory", int)
        if told != (count, memory):
            raise self._error(
                f"the totals do not match: {told}, counted {(count, memory)}"
            )
        if self._line() is not None:
            raise self._error("there are lines after the totals")

    def _line(self) -> dict[str, Any] | None:
        data = self._file.readline(_LONGEST)
        self._number += 1
        if not data:
            return None
        if not data.endswith(b"\n"):
            raise self._error("truncated: the dump is incomplete")
        try:
            line = orjson.loads(data)
        except orjson.JSONDecodeError as exc:
            raise self._error(f"not JSON: {exc}") from None
        if type(line) is not dict:
            raise self._error("not an object")
        return line

    def _get(self, line: dict[str, Any], name: str, type_: type) -> Any:
        value = line.get(name)
        if type(value) is not type_:
            raise self._error(
                f"{name!r} is {value!r:.40}, not of type {type_.__name__}"
            )
        return value

    def _error(self, problem: str) -> HeapFileError:
        return HeapFileError(f"{self.path}, line {self._number}: {problem}")


def _open(stack: ExitStack, path: str) -> _DumpReader:
    try:
        return _DumpReader(path, stack.enter_context(open(path, "rb")))
    except OSError as exc:
        raise HeapFileError(f"{path}: {exc.strerror}") from None


def summarize_heap(path: str) -> HeapSummary:
    """Return the totals of one dump, by type and by the module of the type.

    Raises:
        HeapFileError: the dump cannot be read, or is incomplete.
    """
    types, modules = Sums(), Sums()
    with ExitStack() as stack:
        reader = _open(stack, path)
        for one in reader.objects():
            types.add(one.type_name, one.size)
            modules.add(one.module, one.size)
    summary = HeapSummary(
        data="",
        path=path,
        process_id=reader.header.process_id,
        taken_at=reader.header.taken_at,
        total=types.total(),
        by_type=types.groups(),
        by_module=modules.groups(),
    )
    return evolve(summary, data=describe_summary(summary))


@define(eq=False)
class _TypeNumbers:
    """Numbers for the names of types."""

    _numbers: dict[str, int] = field(factory=dict)
    names: list[str] = field(factory=list)

    def number_of(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]


_Partition = dict[tuple[int, int], int]
"""Sizes by address and type."""


def _partition(
    stack: ExitStack, reader: _DumpReader, types: _TypeNumbers
) -> list[IO[bytes]]:
    """Write the objects of a dump to files, partitioned by address."""
    files = [_temporary_file(stack) for _ in range(_PARTITIONS)]
    for one in reader.objects():
        record = _RECORD.pack(one.address, one.size, types.number_of(one.type_name))
        files[(one.address >> 12) % _PARTITIONS].write(record)
    return files


def _temporary_file(stack: ExitStack) -> IO[bytes]:
    return stack.enter_context(tempfile.TemporaryFile())


def _load(file: IO[bytes]) -> _Partition:
    file.seek(0)
    return {
        (address, type_): size
        for address, size, type_ in _RECORD.iter_unpack(file.read())
    }


def compare_heaps(paths: Sequence[str]) -> HeapComparison:
    """Return what is new in the second dump, and what of it the third still has.

    Args:
        paths: Two or three dumps, the oldest first.

    Raises:
        HeapFileError: there are not two or three dumps, one cannot be read or is
            incomplete, or they are of different processes.
    """
    if len(paths) not in (2, 3):
        raise HeapFileError(f"two or three dumps can be compared, not {len(paths)}")
    types = _TypeNumbers()
    with ExitStack() as stack:
        readers = [_open(stack, path) for path in paths]
        if len({reader.header.process_id for reader in readers}) > 1:
            raise HeapFileError("the dumps are of different processes")
        partitions = [_partition(stack, reader, types) for reader in readers]
        sums = _Differences()
        for files in zip(*partitions, strict=True):
            sums.add_partition([_load(file) for file in files])
    return sums.report(tuple(paths), types.names)


@define(eq=False)
class _Differences:
    _grown: Sums = field(factory=Sums)
    _new: Sums = field(factory=Sums)
    _gone: Sums = field(factory=Sums)
    _stayed: Sums = field(factory=Sums)

    def add_partition(self, parts: Sequence[_Partition]) -> None:
        """Compare one partition of each dump."""
        first, second, last = parts[0], parts[1], parts[-1]
        for (_, type_), size in last.items():
            self._grown.add(type_, size)
        for (_, type_), size in first.items():
            self._grown.add(type_, -size, -1)
        for key in second.keys() - first.keys():
            self._new.add(key[1], second[key])
            if key in last:
                self._stayed.add(key[1], last[key])
        for key in first.keys() - second.keys():
            self._gone.add(key[1], first[key])

    def report(self, paths: tuple[str, ...], names: Sequence[str]) -> HeapComparison:
        """Return the comparison."""
        is_of_three = len(paths) == 3
        found = HeapComparison(
            data="",
            paths=paths,
            grown=self._grown.groups(name_of=names.__getitem__),
            new=self._new.total(),
            gone=self._gone.total(),
            stayed=self._stayed.total() if is_of_three else None,
            new_by_type=self._new.groups(name_of=names.__getitem__),
            stayed_by_type=(
                self._stayed.groups(name_of=names.__getitem__) if is_of_three else ()
            ),
        )
        return evolve(found, data=describe_comparison(found))
