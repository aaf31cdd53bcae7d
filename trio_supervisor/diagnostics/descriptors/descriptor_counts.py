"""Count this process's file descriptors by kind and target."""

from __future__ import annotations

import os
import re
import resource
import stat
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

from attrs import frozen

from trio_supervisor.diagnostics.descriptors.socket_names import SocketName, name_socket
from trio_supervisor.diagnostics.stacks.frames import printable
from trio_supervisor.wire.reports import (
    DescriptorGrowth,
    DescriptorKind,
    DescriptorReport,
    NamedCount,
)

_NAMES: Final = 5
"""Targets shown per kind."""
_ALIKE: Final = 3
"""Files of one directory, each open once, from which on they count as one target."""
_MOST: Final = 1 << 16
"""Descriptors that are tried one by one where the system cannot list them."""
_KINDS: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFIFO: "pipe",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFSOCK: "socket",
}
_ANONYMOUS: Final = re.compile(r"(?:anon_inode:)?\[?([a-zA-Z_-]+)\]?(?::\[\d+\])?$")


@frozen(kw_only=True)
class DescriptorCounts:
    """Open descriptors by kind and target."""

    counts: Mapping[str, Counter[str]]
    limit: int | None
    """RLIMIT_NOFILE. None: unlimited."""

    @property
    def total(self) -> int:
        """The number of open descriptors."""
        return sum(sum(names.values()) for names in self.counts.values())

    def report(self) -> DescriptorReport:
        """Return a report, the most frequent kind first."""
        kinds = tuple(_kinds(self.counts))
        limit = f" (limit {self.limit})" if self.limit is not None else ""
        lines = [f"{self.total} open descriptors{limit}", *_lines(kinds, "")]
        return DescriptorReport(
            data="\n".join(lines), total=self.total, limit=self.limit, kinds=kinds
        )


def count_by_kind() -> DescriptorCounts:
    """Count the open descriptors, without the one that lists them.

    Needs no other descriptor: where none is left, they are tried one by one.
    """
    counts = defaultdict[str, Counter[str]](Counter)
    sockets = list[SocketName]()
    for descriptor in _descriptors():
        with suppress(OSError):  # it was closed since the listing
            kind, name = _identify(descriptor)
            if kind == "socket":
                sockets.append(name_socket(descriptor))
            else:
                counts[kind][name] += 1
    served = {s.port for s in sockets if s.kind.endswith("listening")} - {0}
    for socket_ in sockets:
        counts[socket_.kind][_target_of(socket_, served)] += 1
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return DescriptorCounts(
        counts=MappingProxyType(dict(counts)),
        limit=None if limit == resource.RLIM_INFINITY else limit,
    )


def descriptor_growth(
    before: DescriptorCounts, after: DescriptorCounts
) -> DescriptorGrowth:
    """Return the kinds that have grown from *before* to *after*, the largest first."""
    grown = dict[str, Counter[str]]()
    more = dict[str, int]()
    for kind, names in after.counts.items():
        old = before.counts.get(kind, Counter())
        difference = sum(names.values()) - sum(old.values())
        if difference > 0:
            grown[kind], more[kind] = names - old, difference
    kinds = tuple(_kinds(grown, more))
    total = after.total - before.total
    lines = [f"{total:+d} descriptors, {after.total} open now", *_lines(kinds, "+")]
    return DescriptorGrowth(data="\n".join(lines), total=total, kinds=kinds)


def _descriptors() -> list[int]:
    for directory in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            listed = [int(name) for name in os.listdir(directory)]
            return sorted(number for number in listed if _is_open(number))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if soft == resource.RLIM_INFINITY else min(soft, _MOST)
    return [number for number in range(most) if _is_open(number)]


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _identify(descriptor: int) -> tuple[str, str]:
    """Return the kind and target of *descriptor*; OSError: it is closed."""
    status = os.fstat(descriptor)
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "")
    if kind == "socket" or sys.platform != "linux":
        return kind or "other", ""
    link = printable(os.readlink(f"/proc/self/fd/{descriptor}"))
    if link.startswith("/memfd:"):
        return "memfd", link.removeprefix("/memfd:").removesuffix(" (deleted)")
    if link.startswith("/"):
        return kind or "other", link
    if kind == "pipe":
        return kind, ""
    match = _ANONYMOUS.match(link)
    return (match[1] if match else kind or "other"), ""


def _target_of(socket_: SocketName, served: Iterable[int]) -> str:
    """Return the target of a socket, without the port that differs per connection."""
    if socket_.kind.endswith("listening"):
        return socket_.local
    hung_up = ", closed by the peer" if socket_.is_hung_up else ""
    if socket_.port and socket_.port in served:
        host = socket_.peer.rpartition(":")[0]
        return f"from {host} to local port {socket_.port}{hung_up}"
    if socket_.peer:
        return f"to {socket_.peer}{hung_up}"
    return f"at {socket_.local}" if socket_.local else ""


def _kinds(
    counts: Mapping[str, Counter[str]], totals: Mapping[str, int] | None = None
) -> Iterator[DescriptorKind]:
    known = totals or {kind: sum(names.values()) for kind, names in counts.items()}
    for kind in sorted(counts, key=lambda kind: (-known[kind], kind)):
        names = _by_directory(counts[kind]) if kind == "file" else counts[kind]
        yield DescriptorKind(
            kind=kind,
            count=known[kind],
            names=tuple(
                NamedCount(name=name, count=count)
                for name, count in sorted(names.items(), key=lambda n: (-n[1], n[0]))
                if name
            )[:_NAMES],
        )


def _by_directory(names: Counter[str]) -> Counter[str]:
    """Merge many files of one directory: temporary files have unique names."""
    directories = Counter(os.path.dirname(name) for name in names)
    found = Counter[str]()
    for name, count in names.items():
        directory = os.path.dirname(name)
        is_one_of_many = directories[directory] >= _ALIKE and count == 1
        found[os.path.join(directory, "*") if is_one_of_many else name] += count
    return found


def _lines(kinds: Iterable[DescriptorKind], sign: str) -> Iterator[str]:
    for kind in kinds:
        yield f"{f'{sign}{kind.count}':>7}  {kind.kind}"
        for name in kind.names:
            yield f"         {f'{sign}{name.count}':>7}  {name.name}"
