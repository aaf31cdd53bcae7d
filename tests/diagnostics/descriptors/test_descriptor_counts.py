"""The counts of descriptors: every kind by its name, and what grows."""

from __future__ import annotations

import os
import resource
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.kits.places import ROOT
from trio_supervisor.diagnostics.descriptors.descriptor_counts import (
    DescriptorCounts,
    count_by_kind,
    descriptor_growth,
)


@contextmanager
def grown(*descriptors: int) -> Iterator[None]:
    """Close *descriptors* in the end."""
    yield
    for descriptor in descriptors:
        os.close(descriptor)


def difference(before: DescriptorCounts) -> dict[str, int]:
    return {
        kind.kind: kind.count
        for kind in descriptor_growth(before, count_by_kind()).kinds
    }


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="by names in /proc")


@linux_only
def test_each_descriptor_kind_is_named(tmp_path: Path) -> None:
    before = count_by_kind()
    read, write = os.pipe()
    made = [read, write, os.eventfd(0), os.memfd_create("cache")]
    made += [os.pidfd_open(os.getpid()), os.open(tmp_path, os.O_RDONLY)]
    made += [os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY)]
    made += [os.open(os.devnull, os.O_RDONLY)]
    with grown(*made), select.epoll():
        assert difference(before) == {
            "pipe": 2,
            "eventfd": 1,
            "memfd": 1,
            "pidfd": 1,
            "directory": 1,
            "file": 1,
            "device": 1,
            "eventpoll": 1,
        }
        report = descriptor_growth(before, count_by_kind())
        by_kind = {kind.kind: kind.names for kind in report.kinds}
        assert by_kind["file"][0].name == str(tmp_path / "log")
        assert by_kind["memfd"][0].name == "cache"
        assert report.total == 9
    assert difference(before) == {}


def test_sockets_are_counted_by_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    before = count_by_kind()
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = server.getsockname()[1]
        for _ in range(3):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            stack.enter_context(server.accept()[0])
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        local.bind("local.sock")
        local.listen()
        report = descriptor_growth(before, count_by_kind())
    kinds = {kind.kind: kind for kind in report.kinds}
    assert {k: v.count for k, v in kinds.items()} == {
        "tcp": 6,
        "tcp listening": 1,
        "unix listening": 1,
    }
    assert {n.name: n.count for n in kinds["tcp"].names} == {
        f"to 127.0.0.1:{port}": 3,
        f"from 127.0.0.1 to local port {port}": 3,
    }
    assert kinds["unix listening"].names[0].name == "local.sock"
    assert "+6  tcp\n" in report.data


@linux_only
def test_connection_closed_by_the_peer_is_reported() -> None:
    """Those that pile up are the ones that the application forgets to close."""
    before = count_by_kind()
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        client.close()
        accepted.recv(1)
        with accepted:
            report = descriptor_growth(before, count_by_kind())
    names = [n.name for kind in report.kinds for n in kind.names]
    assert any("closed by the peer" in name for name in names)


def test_counting_does_not_change_sockets() -> None:
    """Even with a default timeout, which makes every socket object non-blocking."""
    before = socket.getdefaulttimeout()
    left, right = socket.socketpair()
    with left, right:
        socket.setdefaulttimeout(5)
        try:
            count_by_kind()
        finally:
            socket.setdefaulttimeout(before)
        assert os.get_blocking(left.fileno())
        assert os.get_blocking(right.fileno())


def test_total_is_sum_of_kinds() -> None:
    report = count_by_kind().report()
    assert report.total == sum(kind.count for kind in report.kinds)
    counts = [kind.count for kind in report.kinds]
    assert counts == sorted(counts, reverse=True)
    for kind in report.kinds:
        assert sum(name.count for name in kind.names) <= kind.count
    assert report.limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_counting_leaves_nothing_open() -> None:
    before = count_by_kind()
    for _ in range(3):
        after = count_by_kind()
    assert descriptor_growth(before, after).total == 0


def test_many_temporary_files_are_merged() -> None:
    before = count_by_kind()
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        for _ in range(20):
            stack.enter_context(tempfile.NamedTemporaryFile(dir=directory))
        report = descriptor_growth(before, count_by_kind())
    (kind,) = report.kinds
    assert (kind.kind, kind.count) == ("file", 20)
    (name,) = kind.names
    assert (name.name, name.count) == (os.path.join(directory, "*"), 20)


@linux_only
def test_counting_needs_no_free_descriptor() -> None:
    """That is when it is asked for. In a process of its own, which has few."""
    program = (
        "import os, resource\n"
        "from trio_supervisor.diagnostics.descriptors import descriptor_counts\n"
        "count_by_kind = descriptor_counts.count_by_kind\n"
        "count_by_kind()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "try:\n"
        "    while True: os.dup(0)\n"
        "except OSError: pass\n"
        "report = count_by_kind().report()\n"
        "print(report.total, report.limit, report.kinds[0].names[0].count)\n"
    )
    found = subprocess.check_output(
        [sys.executable, "-c", program], stdin=subprocess.DEVNULL, cwd=ROOT
    )
    total, limit, most = map(int, found.split())
    assert total == limit == 64
    assert most > 50
