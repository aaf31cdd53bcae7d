"""Test serve as process 1 of a container and with few writable directories."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.kits.serving import (
    COMMAND,
    PATIENCE,
    environment_of_children,
    is_alive,
    open_serving,
    run_cli,
    short_directory,
    wait_gone,
)

NEW_PIDS = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def may_run(words: Sequence[str]) -> bool:
    """Return whether this system permits running *words*."""
    if shutil.which(words[0]) is None:
        return False
    done = subprocess.run([*words, "true"], capture_output=True, check=False)
    return done.returncode == 0


as_pid_1 = pytest.mark.skipif(
    not may_run(NEW_PIDS), reason="may not make a namespace of processes here"
)

SERVICE = """
import os
import subprocess
import trio
from trio_supervisor import Application, Command, Service, Worker

async def orphans(worker: Worker) -> None:
    # Each leaves an orphan behind, which exits with a code that no worker has.
    for code in range(20):
        subprocess.run(["sh", "-c", f"(sleep 0.05; exit {code}) & exit 0"], check=True)
    await worker.ready()
    await worker.stopping.wait()

application = Application([
    Service("orphans", orphans),
    Command("code", ["sh", "-c", "exit 42"], restart="never", give_up_on=(42,)),
    Command("first", ["sh", "-c", "echo first is $PPID >&2; exec sleep 1000"]),
    Command("told", ["sh", "-c", "trap 'echo two >&2' USR2; echo begun >&2;"
                     "while :; do sleep 0.01; done"], forward_signals=["USR2"]),
])
"""


def children(process_id: int) -> list[int]:
    """Return the children of a process, by the pids of our namespace."""
    path = f"/proc/{process_id}/task/{process_id}/children"
    return [int(word) for word in Path(path).read_text().split()]


@as_pid_1
def test_pid_1_reaps_orphans_only() -> None:
    with open_serving(SERVICE, is_ready=False, prefix=NEW_PIDS) as serving:
        serving.wait_event(event="ready", name="orphans.0")
        assert serving.wait_event(event="serving")["process_id"] == 1
        serving.printed("first.0", "first is 1")
        # Workers keep their exit status while orphans are reaped.
        code = serving.wait_event(event="exited", name="code.0")
        assert code["returncode"] == 42
        serving.printed("told.0", "begun")
        [init] = children(serving.process.pid)
        serving.until(lambda: all(map(is_alive, children(init))), "no zombies")

        os.kill(init, signal.SIGUSR2)
        serving.printed("told.0", "two")
        since = serving.mark()
        os.kill(init, signal.SIGHUP)
        assert serving.wait_event(since=since, event="reloaded")["generation"] == 2
        status = serving.cli("status")
        assert status.returncode == 0
        left = children(init)
        os.kill(init, signal.SIGTERM)
        assert serving.wait_exit() == 0
        wait_gone(left)


@as_pid_1
@pytest.mark.parametrize(
    ("service", "code"),
    [
        ('Command("a", ["sh", "-c", "exit 3"], intensity=0, backoff=None)', 13),
        ('Command("a", ["sh", "-c", "exit 3"], significant=True, restart="never")', 15),
        ('Command("a", ["true"], significant=True, restart="never")', 0),
        ('Command("a", [], significant=True)', 10),
    ],
)
def test_pid_1_exits_with_exit_code(service: str, code: int) -> None:
    source = (
        "from trio_supervisor import Application, Command\n"
        f"application = Application([{service}])\n"
    )
    with open_serving(source, is_ready=False, prefix=NEW_PIDS) as serving:
        assert serving.wait_exit() == code


# Like a container with a read-only root: / and everything below it is read-only, except
# /tmp, which is another file system.
READ_ONLY = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mount -o remount,bind,ro "$0" "$0" 2>/dev/null || { mount --bind "$0" "$0" &&'
    ' mount -o remount,bind,ro "$0"; }; cd "$0"; exec "$@"',
)


def serve_there(
    directory: Path, *words: str, prefix: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``serve`` with almost no environment, as the user of *prefix*."""
    kept = {"PATH": os.environ["PATH"]}
    ours = environment_of_children()
    return subprocess.run(
        [*prefix, *COMMAND, "serve", "service.py", *words],
        cwd=directory,
        env={**kept, "PYTHONPATH": ours["PYTHONPATH"], **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


SHORT = """
import os
from trio_supervisor import Application, Service, SyncWorker

def work(worker: SyncWorker) -> None:
    worker.ready()
    print("worked as", os.getuid(), "with HOME", os.environ.get("HOME"))

application = Application([
    Service("work", work, backend="sync", restart="never", significant=True),
])
"""

SOMEBODY = ("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups")
CAN_RUN_ITSELF = (
    "import subprocess, sys; subprocess.run([sys.executable, '-V'], check=1)"
)

somebody_else = pytest.mark.skipif(
    not may_run((*SOMEBODY, sys.executable, "-c", CAN_RUN_ITSELF)),
    reason="cannot switch to another user here, or that user cannot run Python",
)


@somebody_else
def test_unwritable_directory_needs_socket_elsewhere() -> None:
    """There is no HOME, and the user has no name."""
    with short_directory() as directory, short_directory() as run:
        (directory / "service.py").write_text(SHORT)
        directory.chmod(0o555)
        run.chmod(0o777)

        refused = serve_there(directory, prefix=SOMEBODY)
        served = serve_there(
            directory, "--socket", str(run / "s.ipc"), prefix=SOMEBODY, TMPDIR=str(run)
        )

        directory.chmod(0o755)
        assert refused.returncode == 12
        [line] = refused.stderr.splitlines()
        assert line.startswith("trio-supervisor: the socket directory is not writable")
        assert "--socket" in line
        assert (served.returncode, "worked as 54321 with HOME None") == (
            0,
            served.stdout.partition("| ")[2].strip(),
        )
        assert {path.name for path in directory.iterdir()} == {"service.py"}


@somebody_else
def test_unwritable_temporary_directory_is_reported() -> None:
    with short_directory() as directory:
        (directory / "service.py").write_text(SHORT)
        directory.chmod(0o777)
        (directory / "closed").mkdir(mode=0o555)
        closed = str(directory / "closed")
        words = [
            sys.executable,
            "-c",
            f"""
import sys, tempfile
tempfile.tempdir = {closed!r}
from trio_supervisor.cli.main import main
sys.exit(main(["serve", "service.py"]))
""",
        ]
        answer = subprocess.run(
            [*SOMEBODY, *words],
            cwd=directory,
            env=environment_of_children(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

        assert answer.returncode == 14
        assert "set TMPDIR to another one" in answer.stderr.splitlines()[-1]


@pytest.mark.skipif(
    not may_run((*READ_ONLY, "/tmp")), reason="may not mount anything here"
)
def test_read_only_file_system_needs_socket_elsewhere() -> None:
    with short_directory() as directory, short_directory() as run:
        (directory / "service.py").write_text(SHORT)
        prefix = (*READ_ONLY, str(directory))

        refused = serve_there(directory, prefix=prefix)
        served = serve_there(
            directory, "--socket", str(run / "s.ipc"), prefix=prefix, TMPDIR=str(run)
        )

        assert refused.returncode == 12
        assert "the socket directory is not writable" in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert served.returncode == 0
        assert "worked as" in served.stdout
        assert not list(run.iterdir())


def test_read_only_file_system_probe_works() -> None:
    with short_directory() as directory:
        answer = run_cli("probe", "liveness", directory=directory, HOME="/nowhere")
        assert answer.returncode == 3
