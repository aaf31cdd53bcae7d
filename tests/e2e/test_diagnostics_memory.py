"""Test memory samples and dumps of a real worker that grows."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.kits.diagnosed import data, open_diagnosed, text
from tests.kits.serving import COMMAND, PATIENCE, Serving, environment_of_children


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_diagnosed() as found:
        yield found


def test_memory_sample_names_holder_of_growth(serving: Serving) -> None:
    report = data(serving, "memory-sample", "leaks", "--duration", "3")
    assert report["total_retained"]["count"] > 1000
    largest = report["holders"][0]
    assert any("CACHE" in step["text"] for step in largest["chain"])
    assert largest["chain"][0]["file"].endswith("service.py")
    by_class = sum(group["memory"] for group in report["by_class"])
    assert by_class == report["total_retained"]["memory"]


def test_memory_sample_while_another_runs_is_refused(serving: Serving) -> None:
    with serving.peer() as client:
        sample = '{"do":"memory_sample","duration":8,"progress":true}'
        client.send(f'{{"id":2,"do":"forward","name":"leaks.0","operation":{sample}}}')
        assert 0 < client.receive()["progress"] < 1
        second = serving.cli("memory-sample", "leaks", "--duration", "0.1")
        assert (second.returncode, "Busy" in second.stderr) == (1, True)
        while not (answer := client.receive()).get("finished"):
            pass
        assert answer["total_retained"]["count"] > 0


def test_memory_sample_ctrl_c_ends_it_in_worker(serving: Serving) -> None:
    """Until then a terminal shows its progress."""
    ours, theirs = os.openpty()
    with (
        open(ours, "rb", buffering=0) as terminal,
        subprocess.Popen(
            [*COMMAND, "memory-sample", "leaks", "--duration", "600"],
            cwd=serving.directory,
            env=environment_of_children(),
            stderr=theirs,
        ) as process,
    ):
        os.close(theirs)
        seen = b""
        while "░".encode() not in seen:
            seen += terminal.read(4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    while serving.cli("memory-sample", "leaks", "--duration", "0.1").returncode != 0:
        pass


def test_memory_dump_is_private_and_never_overwrites(serving: Serving) -> None:
    one, two = serving.directory / "tmp" / "one", serving.directory / "tmp" / "two"
    for path in (one, two):
        assert str(path) in text(serving, "memory-dump", "leaks", "--path", str(path))
        assert path.stat().st_mode & 0o777 == 0o600
    again = serving.cli("memory-dump", "leaks", "--path", str(one))
    assert again.returncode == 1
    assert str(one) in again.stderr
    assert "str" in text(serving, "heap", str(one))
    assert data(serving, "heap", str(one), str(two))["new"]["count"] > 0
    one.unlink()
    two.unlink()


def test_memory_sample_with_memray_names_allocating_line(serving: Serving) -> None:
    pytest.importorskip("memray")
    words = ("memory-sample", "leaks", "--duration", "2", "--engine", "memray")
    report = data(serving, *words)
    frames = [frame for site in report["sites"] for frame in site["frames"]]
    assert "leaks" in {frame["function"] for frame in frames}
    assert serving.cli("allocation-trace-start", "leaks").returncode == 0
    refused = serving.cli(*words)
    assert (refused.returncode, "Busy" in refused.stderr) == (1, True)
    assert "traced by memray" in text(serving, "allocation-trace-stop", "leaks")
    assert serving.cli("allocation-trace-stop", "leaks").returncode == 1
