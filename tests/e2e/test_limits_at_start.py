"""Test limits that are too small for `serve`: one sentence and exit code 14."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest

from tests.kits.serving import (
    COMMAND,
    ISSUE_SERVICE,
    environment_of_children,
    open_serving,
    short_directory,
)

# It exits on its own once it is served.
ONE_JOB = """
from trio_supervisor import Application, Command

application = Application(
    [Command("job", ["true"], restart="never", significant=True)],
    auto_shutdown="any",
)
"""
MEGABYTE = 1024 * 1024


def serve(
    directory: Path, limit: int, value: int, source: str = ONE_JOB
) -> subprocess.CompletedProcess[str]:
    """Run `serve` under a limit until it exits."""
    (directory / "service.py").write_text(source, encoding="utf-8")
    (directory / "tmp").mkdir(exist_ok=True)
    return subprocess.run(
        [*COMMAND, "serve", "service.py"],
        cwd=directory,
        env={**environment_of_children(), "TMPDIR": str(directory / "tmp")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(limit, (value, value)),
    )


@pytest.mark.parametrize("value", [8, 12, 48])
def test_serve_with_too_few_descriptors_exits_14(value: int) -> None:
    with short_directory() as directory:
        done = serve(directory, resource.RLIMIT_NOFILE, value)
        assert done.returncode == 14, done.stderr
        assert "Traceback" not in done.stderr
        assert f"RLIMIT_NOFILE={value}" in done.stderr or f"is {value}" in done.stderr
        assert "supervisor.ipc" not in {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("megabytes", [36, 52, 72])
def test_serve_with_too_little_address_space_exits_14(megabytes: int) -> None:
    """It may also run, if the machine needs less than the limit."""
    with short_directory() as directory:
        done = serve(directory, resource.RLIMIT_AS, megabytes * MEGABYTE)
        if done.returncode == 0:
            assert "everything stopped" in done.stderr
        else:
            assert done.returncode == 14, done.stderr
            assert f"RLIMIT_AS={megabytes * MEGABYTE} bytes" in done.stderr


@pytest.mark.parametrize("value", [0, 200])
def test_serve_with_too_small_file_size_exits_14(value: int) -> None:
    """The declaration is a file in memory, which must fit into the limit."""
    with short_directory() as directory:
        done = serve(directory, resource.RLIMIT_FSIZE, value)
        assert done.returncode == 14, done.stderr
        assert "Traceback" not in done.stderr
        assert f"RLIMIT_FSIZE={value} bytes" in done.stderr


def test_serve_import_out_of_memory_names_line_and_exits_14() -> None:
    source = f"data = bytearray({100_000 * MEGABYTE})\n{ONE_JOB}"
    with short_directory() as directory:
        done = serve(directory, resource.RLIMIT_AS, 2000 * MEGABYTE, source)
        assert done.returncode == 14, done.stderr
        assert "service.py, line 1" in done.stderr
        assert "RLIMIT_AS=" in done.stderr
        assert "Traceback" not in done.stderr


def test_scale_and_reload_check_descriptors_before_start() -> None:
    """The message has the numbers, the exit code is 1, and nothing changes."""
    with open_serving(ISSUE_SERVICE) as serving:
        pids = serving.pids()
        before = serving.mark()
        resource.prlimit(serving.process.pid, resource.RLIMIT_NOFILE, (120, 120))
        done = serving.cli("scale", "worker=60")
        assert done.returncode == 1, done.stderr
        assert "too few file descriptors for 60 workers" in done.stderr
        assert "need 424 each, RLIMIT_NOFILE is 120" in done.stderr
        assert "RLIMIT_NOFILE is 120" in done.stderr
        serving.edit(ISSUE_SERVICE.replace("count=4", "count=50"))
        done = serving.cli("reload")
        assert done.returncode == 1, done.stderr
        assert "file descriptors" in done.stderr
        assert serving.pids() == pids
        assert not serving.select(before, event="started")
        serving.edit(ISSUE_SERVICE)
        assert serving.cli("scale", "worker=5").returncode == 0
