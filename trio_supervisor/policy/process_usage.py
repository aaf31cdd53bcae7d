"""Add up what the processes of a tree use. Pure.

Source of the fields: proc_pid_stat(5), proc_pid_status(5), proc_pid_io(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

from attrs import define

_STATE, _PARENT = 0, 1
_MINOR_FAULTS, _MAJOR_FAULTS = 7, 9
_USER, _SYSTEM, _THREADS, _START, _RSS = 11, 12, 17, 19, 21


@define(kw_only=True)
class UsageSample:
    """What one process used up to one moment; None: not readable, or not asked for."""

    process_id: int
    parent_id: int
    state: str
    """A letter of proc_pid_stat(5), such as ``R``, ``S``, ``D``, ``T`` or ``Z``."""
    started_at: float
    """Time since the machine booted, or since the epoch where /proc is not [s]."""
    cpu_time: float
    """User and system time [s]."""
    rss: int
    """[bytes]"""
    threads: int
    minor_faults: int | None = None
    major_faults: int | None = None
    descriptors: int | None = None
    voluntary_switches: int | None = None
    involuntary_switches: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    uss: int | None = None
    """[bytes]"""
    pss: int | None = None
    """[bytes]"""


_SUMS = (
    *("cpu_time", "rss", "uss", "pss", "threads", "descriptors", "minor_faults"),
    *("major_faults", "voluntary_switches", "involuntary_switches", "read_bytes"),
    "written_bytes",
)
_figures_of = attrgetter(*_SUMS)


def parse_stat(
    process_id: int, line: bytes, *, ticks: int, page: int
) -> UsageSample | None:
    """Return the figures of a line of ``/proc/PID/stat``; None: it is incomplete.

    Args:
        ticks: Clock ticks per second.
        page: Size of a page [bytes].
    """
    # The name may contain spaces and parentheses.
    fields = line[line.rfind(b")") + 2 :].split(None, _RSS + 1)
    if len(fields) <= _RSS:
        return None
    return UsageSample(
        process_id=process_id,
        parent_id=int(fields[_PARENT]),
        state=fields[_STATE].decode(),
        started_at=int(fields[_START]) / ticks,
        cpu_time=(int(fields[_USER]) + int(fields[_SYSTEM])) / ticks,
        rss=int(fields[_RSS]) * page,
        threads=int(fields[_THREADS]),
        minor_faults=int(fields[_MINOR_FAULTS]),
        major_faults=int(fields[_MAJOR_FAULTS]),
    )


def parse_switches(text: bytes) -> tuple[int, int] | None:
    """Return the voluntary and involuntary context switches of ``/proc/PID/status``."""
    at = text.rfind(b"\nvoluntary_ctxt_switches:")
    fields = text[at:].split() if at >= 0 else []
    return (int(fields[1]), int(fields[3])) if len(fields) == 4 else None


def parse_io(text: bytes) -> tuple[int, int] | None:
    """Return the bytes read from and written to storage of ``/proc/PID/io``."""
    fields = text[text.find(b"read_bytes:") :].split()
    is_whole = len(fields) > 3 and fields[0] == b"read_bytes:"
    return (int(fields[1]), int(fields[3])) if is_whole else None


def find_trees(
    samples: Mapping[int, UsageSample], roots: Iterable[int]
) -> dict[int, list[UsageSample]]:
    """Return each of *roots* that exists, with its descendants, itself first.

    A root that descends from another one belongs to its own tree only.
    """
    wanted = dict.fromkeys(root for root in roots if root in samples)
    children: dict[int, list[UsageSample]] = {}
    for sample in samples.values():
        if sample.process_id not in wanted:
            children.setdefault(sample.parent_id, []).append(sample)
    trees = {}
    for root in wanted:
        tree = [samples[root]]
        for each in tree:  # grows while it is walked
            tree += children.pop(each.process_id, ())
        trees[root] = tree
    return trees


def cpu_seconds_since(
    before: Mapping[int, UsageSample], tree: Iterable[UsageSample]
) -> float:
    """Return the processor time that *tree* used since the samples *before* [s].

    All of the time of a process that was started since counts, none of a process that
    has exited: its parent did not keep it in a counter of its own.
    """
    used = 0.0
    for each in tree:
        past = before.get(each.process_id)
        is_same = past is not None and past.started_at == each.started_at
        used += each.cpu_time - (past.cpu_time if past is not None and is_same else 0.0)
    return max(0.0, used)


def total(tree: Sequence[UsageSample]) -> dict[str, float | int | None]:
    """Return the sum of each figure over *tree*; None: it is unknown of all."""
    if len(tree) == 1:
        return dict(zip(_SUMS, _figures_of(tree[0]), strict=True))
    sums: dict[str, float | int | None] = {}
    for name, values in zip(
        _SUMS, zip(*map(_figures_of, tree), strict=True), strict=True
    ):
        known = [value for value in values if value is not None]
        sums[name] = sum(known) if known else None
    return sums


def copy_details(before: Mapping[int, UsageSample], sample: UsageSample) -> None:
    """Copy the details of the same process from the samples *before*, if it is there.

    Details are descriptors, context switches and io.
    """
    past = before.get(sample.process_id)
    if past is not None and past.started_at == sample.started_at:
        sample.descriptors = past.descriptors
        sample.voluntary_switches = past.voluntary_switches
        sample.involuntary_switches = past.involuntary_switches
        sample.read_bytes, sample.written_bytes = past.read_bytes, past.written_bytes
