"""Test that importing an application affects only the importing process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kits.serving import (
    COMMAND,
    PATIENCE,
    environment_of_children,
    open_serving,
    run_cli,
    short_directory,
    wait_gone,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs a fork server")

SERVICE = """
import trio
from trio_supervisor import Application, Service

async def web(worker):
    await worker.ready()
    await trio.sleep_forever()

def job(worker):
    raise SystemExit(7)

application = Application([
    Service("web", web),
    Service("job", job, backend="sync", restart="never"),
])
"""

ENDINGS = {
    "os._exit": ("import os\n\nos._exit(3)", "line 3: ", "exit code 3"),
    "SIGKILL": ("import os\nos.kill(os.getpid(), 9)", "line 2: ", "SIGKILL"),
    "a crash of C code": ("import ctypes\nctypes.string_at(0)", "line 2 (", "SIGSEGV"),
    "an exit of the parent": (
        "import os\nif os.fork():\n    os._exit(0)\nos.setsid()",
        "line 3: ",
        "exit code 0",
    ),
    "a thread": (
        "import os, threading, time\n"
        "threading.Thread(target=lambda: os._exit(4)).start()\n"
        "time.sleep(3600)",
        "line 2: ",
        "exit code 4",
    ),
    "another program": (
        'import os\nos.execv("/bin/sleep", ["sleep", "3600"])',
        "line 2: ",
        "with another program",
    ),
    "Ctrl-C of its own": ("raise KeyboardInterrupt", "line 1: ", "KeyboardInterrupt"),
}


@pytest.mark.parametrize(("source", "place", "how"), ENDINGS.values(), ids=ENDINGS)
def test_import_that_exits_names_line(source: str, place: str, how: str) -> None:
    """The message names the line, and nothing is left running."""
    with short_directory() as directory:
        (directory / "service.py").write_text(f"{source}\n{SERVICE}")

        finished = run_cli("serve", "service.py", directory=directory)

        (last,) = [x for x in finished.stderr.splitlines() if "trio-supervisor:" in x]
        assert last.startswith(f"trio-supervisor: service.py, {place}")
        assert how in last
        assert "Traceback" not in finished.stderr
        assert finished.returncode == 10
        assert set(os.listdir(directory)) <= {"service.py", "__pycache__"}


HANGING = """
import os, time
print(os.getpid(), flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_import_that_hangs_can_be_stopped(number: int, code: int) -> None:
    """The importing process exits too."""
    with short_directory() as directory:
        (directory / "service.py").write_text(HANGING + SERVICE)
        with subprocess.Popen(
            [*COMMAND, "serve", "service.py"],
            cwd=directory,
            env=environment_of_children(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            importing = int(process.stdout.readline())
            process.send_signal(number)
            process.communicate(timeout=PATIENCE)
        wait_gone([importing])

        assert process.returncode == code


def test_import_past_timeout_is_abandoned() -> None:
    """The message names the limit and the line at which the import was."""
    with short_directory() as directory:
        (directory / "service.py").write_text(HANGING + SERVICE)
        finished = run_cli(
            *("serve", "service.py", "--import-timeout", "2.5"), directory=directory
        )
        wait_gone([int(finished.stdout)])

        assert finished.returncode == 10
        assert "line 4" in finished.stderr
        assert "not finish within 2.5 s (--import-timeout)" in finished.stderr


HARMFUL = """
import faulthandler, gc, locale, logging.config, os, resource, signal, socket, sys
import warnings

with open("tmp/imports", "a") as file:
    print(os.getppid(), file=file)
print("said by the import")
warnings.warn("warned by the import")
bound = socket.create_server(("127.0.0.1", 0))
logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
logging.disable(logging.CRITICAL)
signal.signal(signal.SIGCHLD, lambda *_: None)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGUSR1])
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
os.umask(0o777)
os.environ["LEFT_BEHIND"] = "yes"
locale.setlocale(locale.LC_ALL, "C")
gc.disable()
faulthandler.enable()
os.set_blocking(2, False)
os.fork()
os.chdir("/")
sys.path.clear()
os.close(0)
"""


def status_of(process_id: int) -> dict[str, str]:
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def test_import_side_effects_do_not_reach_controller() -> None:
    """It is imported once; log, exit codes, signals and environment are unaffected."""
    with open_serving(HARMFUL + SERVICE, is_ready=False, stdout=subprocess.PIPE) as s:
        s.wait_event(name="web.0", event="ready")
        assert s.wait_event(name="job.0", event="exited")["returncode"] == 7
        s.until(lambda: "warned by the import" in s.text, "the warning")
        assert len((s.directory / "tmp" / "imports").read_text().split()) == 1
        keys, own = ("SigBlk", "SigIgn", "Umask"), status_of(os.getpid())

        def is_the_same() -> bool:
            found = status_of(s.process.pid)
            return all(found[key] == own[key] for key in keys)

        # subprocess blocks all signals while it starts a program.
        s.until(is_the_same, "signals and umask as they were")
        assert "application" not in Path(f"/proc/{s.process.pid}/maps").read_text()
        assert os.readlink(f"/proc/{s.process.pid}/cwd") == str(s.directory)
        assert s.terminate() == 0
        assert s.process.stdout is not None
        assert s.process.stdout.read() == "said by the import\n"
        s.process.stdout.close()


def test_reload_imports_once_and_names_line() -> None:
    """The process that imports is the fork server of the new generation."""
    counted = 'open("tmp/imports", "a").write("x")\n' + SERVICE
    counted = counted.replace("raise SystemExit(7)", "pass")
    with open_serving(counted, is_ready=False) as s:
        s.wait_event(name="web.0", event="ready")
        assert s.cli("reload").returncode == 0
        assert (s.directory / "tmp" / "imports").read_text() == "xx"
        s.edit("import os\nos._exit(9)\n")
        failed = s.cli("reload")
        assert failed.returncode == 1
        assert "service.py, line 2: the import terminated its" in failed.stderr
        s.edit(counted)
        assert s.cli("reload", "--dry-run").returncode == 0
        assert (s.directory / "tmp" / "imports").read_text() == "xxx"
