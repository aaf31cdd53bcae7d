"""Test that a forked worker exits as a Python process does."""

from __future__ import annotations

import gzip
import json
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kits.serving import Serving, is_alive, open_serving

_TELEMETRY = """
import atexit, os

class Processor:
    def __init__(self, directory):
        self.spans, self.directory = [], directory
        os.register_at_fork(after_in_child=self.begin_again)

    def begin_again(self):
        self.spans = []

    def shutdown(self):
        with open(f"{self.directory}/spans-{os.getpid()}", "w") as file:
            file.write(",".join(self.spans))

def install(directory):
    processor = Processor(directory)
    atexit.register(processor.shutdown)
    return processor
"""

_SERVICE = r"""
import atexit, functools, gzip, io, json, logging.handlers, multiprocessing, os, shutil
import signal, subprocess, sys, tempfile, threading, time, weakref, zipfile
from trio_supervisor import Application, Service
import telemetry

HERE = os.path.dirname(os.path.abspath(__file__))
IS_SHARED = "serve" not in sys.orig_argv
made = {}


def note(name, text=""):
    with open(f"{HERE}/{name}", "a") as file:
        file.write(text)


if IS_SHARED:
    spans = telemetry.install(HERE)
    directory = tempfile.TemporaryDirectory()
    scratch = tempfile.mkdtemp()
    atexit.register(functools.partial(shutil.rmtree, scratch, ignore_errors=True))
    finalized = type("Owner", (), {})()
    weakref.finalize(finalized, note, "finalized", "x")
    left_open = open(f"{HERE}/opened-by-import", "w")
    left_open.write("import ")
    kept_log = logging.handlers.MemoryHandler(
        1000, target=logging.FileHandler(f"{HERE}/memory-log", delay=True))
    logging.getLogger("kept").addHandler(kept_log)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=time.sleep, args=(3600,), daemon=True)
    child.start()
    program = subprocess.Popen(["sleep", "3600"])
    atexit.register(program.kill)
    made = {"directory": directory.name, "scratch": scratch, "child": child.pid,
            "program": program.pid}

    def report(kind, exc, traceback):
        note("excepthook", f"{kind.__name__} {exc}\n")

    sys.excepthook = report


def tell(worker):
    note("made", json.dumps(made))


def work(worker):
    global text, zipped, packed, temporary, holder
    text = open(f"{HERE}/text", "w")
    text.write("x" * 10_000)
    packed = gzip.open(f"{HERE}/packed.gz", "wt")
    packed.write("y" * 10_000)
    zipped = zipfile.ZipFile(f"{HERE}/zipped.zip", "w")
    zipped.writestr("member", "z" * 100)
    temporary = tempfile.NamedTemporaryFile(dir=HERE, prefix="temporary-")
    holder = tempfile.TemporaryDirectory(dir=HERE, prefix="holder-")
    left_open.write("worker")
    logging.getLogger("kept").error("kept until the end")
    spans.spans.append(worker.name)
    atexit.register(note, "own-handler", "ran")
    threading.Thread(target=lambda: (time.sleep(0.2), note("thread", "joined"))).start()


def exits(worker):
    spans.spans.append(worker.name)
    held = open(f"{HERE}/exits", "w")
    held.write("x" * 10_000)
    worker.status("leaving")
    sys.exit(3)


def fails(worker):
    raise ValueError("on purpose")


def interrupts(worker):
    raise KeyboardInterrupt


def stays(worker):
    worker.ready()
    worker.stopping.wait()


def once(name, target):
    return Service(name, target, backend="sync", restart="never")


application = Application(services=[
    once("tell", tell), once("work", work), once("exits", exits),
    once("fails", fails), once("interrupts", interrupts),
    Service("stays", stays, backend="sync"),
])
"""


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Serving, dict[str, Any]]]:
    """Serve an application until its jobs have exited; return what its import made."""
    with open_serving(
        _SERVICE, is_ready=False, files={"telemetry.py": _TELEMETRY}
    ) as serving:
        ends = {
            name: serving.wait_event(name=f"{name}.0", event="exited")
            for name in ("tell", "work", "exits", "fails", "interrupts")
        }
        made = json.loads((serving.directory / "made").read_text())
        yield serving, {"ends": ends, **made}


Served = tuple[Serving, dict[str, Any]]


def test_worker_exit_flushes_open_files(served: Served) -> None:
    serving, _ = served
    directory = serving.directory
    assert (directory / "text").read_text() == "x" * 10_000
    assert (directory / "exits").read_text() == "x" * 10_000
    packed = (directory / "packed.gz").read_bytes()
    assert gzip.decompress(packed) == b"y" * 10_000
    with zipfile.ZipFile(directory / "zipped.zip") as zipped:
        assert zipped.read("member") == b"z" * 100


def test_worker_exit_flushes_file_of_import_once(served: Served) -> None:
    """Data buffered before the fork is not written again."""
    serving, _ = served
    assert (serving.directory / "opened-by-import").read_text() == "import worker"


def test_worker_exit_removes_its_temporary_files(served: Served) -> None:
    serving, _ = served
    names = [path.name for path in serving.directory.iterdir()]
    assert not [name for name in names if name.startswith(("temporary-", "holder-"))]


@pytest.mark.parametrize(
    ("name", "text"), [("own-handler", "ran"), ("thread", "joined")]
)
def test_worker_exit_runs_handlers_and_joins_threads(
    served: Served, name: str, text: str
) -> None:
    serving, _ = served
    assert (serving.directory / name).read_text() == text


def test_worker_exit_delivers_telemetry(served: Served) -> None:
    serving, _ = served
    spans = {path.read_text() for path in serving.directory.glob("spans-*")}
    assert {"work.0", "exits.0"} <= spans
    assert "kept until the end" in (serving.directory / "memory-log").read_text()


def test_worker_exception_calls_excepthook(served: Served) -> None:
    serving, told = served
    text = (serving.directory / "excepthook").read_text()
    assert "ValueError on purpose" in text
    assert told["ends"]["fails"]["returncode"] == 1


def test_worker_exit_codes_are_those_of_python(served: Served) -> None:
    _, told = served
    assert told["ends"]["work"]["returncode"] == 0
    assert told["ends"]["exits"]["returncode"] == 3
    assert told["ends"]["interrupts"]["returncode"] == -signal.SIGINT


def test_worker_exit_keeps_what_import_made(
    served: Served,
) -> None:
    serving, told = served
    assert Path(told["directory"]).is_dir()
    assert Path(told["scratch"]).is_dir()
    assert not (serving.directory / "finalized").exists()
    assert is_alive(told["child"])
    assert is_alive(told["program"])


def test_fork_server_exit_runs_import_handlers_once(
    served: Served,
) -> None:
    serving, told = served
    serving.terminate()
    assert not Path(told["directory"]).exists()
    assert not Path(told["scratch"]).exists()
    assert (serving.directory / "finalized").read_text() == "x"
    assert not is_alive(told["child"])
    assert not is_alive(told["program"])
