"""Test that a forked worker starts and ends as an exec'd one does."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kits.serving import describe, open_serving

_PROBE = r"""
import atexit, faulthandler, gc, io, json, locale, logging, multiprocessing, os
import random, resource, secrets, signal, socket, sys, tempfile, threading, tracemalloc
import uuid, warnings, weakref
from trio_supervisor import Application, Service

HERE = os.path.dirname(os.path.abspath(__file__))
os.makedirs(f"{HERE}/moved", exist_ok=True)

if "serve" not in sys.orig_argv:
    os.environ["SET_BY_IMPORT"] = "yes"
    os.environ["CHANGED_BY_IMPORT"] = os.environ["CHANGED_BY_IMPORT"] + "+import"
    os.environ.pop("REMOVED_BY_IMPORT", None)
    gc.disable()
    gc.set_threshold(333, 4, 5)
    sys.setrecursionlimit(4321)
    sys.setswitchinterval(0.02)
    os.chdir(f"{HERE}/moved")
    os.umask(0o027)
    warnings.filterwarnings("error", "an odd warning")
    locale.setlocale(locale.LC_NUMERIC, "C.UTF-8")
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    signal.setitimer(signal.ITIMER_VIRTUAL, 5000, 100)
    resource.setrlimit(resource.RLIMIT_NOFILE,
                       (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    socket.setdefaulttimeout(7)
    sys.path.append("/added/by/import")
    sys.excepthook = lambda *_: None
    threading.excepthook = lambda *_: None
    logging.basicConfig(level=logging.DEBUG, stream=io.StringIO())
    sys.set_int_max_str_digits(5000)
    REDIRECTED = open(f"{HERE}/moved/out-{os.getpid()}", "w", buffering=1)
    sys.stdout = REDIRECTED
    STARTED = threading.current_thread() is threading.main_thread()


def facts():
    limits = [resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_CPU]
    return {
        "environment set by the import": os.environ.get("SET_BY_IMPORT"),
        "environment changed by the import": os.environ["CHANGED_BY_IMPORT"],
        "environment removed by the import": "REMOVED_BY_IMPORT" in os.environ,
        "environment": sorted(os.environ),
        "collector": gc.isenabled(),
        "collector's thresholds": gc.get_threshold(),
        "recursion limit": sys.getrecursionlimit(),
        "switch interval": sys.getswitchinterval(),
        "directory": os.getcwd(),
        "umask": (mask := os.umask(0), os.umask(mask))[0],
        "warning filters": [f[0] for f in warnings.filters if f[1]
                            and f[1].pattern == "an odd warning"],
        "locale": locale.setlocale(locale.LC_NUMERIC),
        "handlers": {s.name: str(signal.getsignal(s)).split(" at ")[0]
                     for s in signal.Signals},
        "signal mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "timer": [round(t, -1) for t in signal.getitimer(signal.ITIMER_VIRTUAL)],
        "limits": [resource.getrlimit(limit) for limit in limits],
        "default timeout": socket.getdefaulttimeout(),
        "import path": "/added/by/import" in sys.path,
        "excepthook": sys.excepthook.__qualname__,
        "thread excepthook": threading.excepthook.__qualname__,
        "root logger": (logging.getLogger().level, len(logging.getLogger().handlers)),
        "integer digits": sys.get_int_max_str_digits(),
        "stdout": type(sys.stdout).__name__ + os.path.basename(sys.stdout.name)[:4],
        "arguments": [os.path.basename(a) for a in sys.argv],
        "flags": list(sys.flags),
        "main thread": threading.main_thread() is threading.current_thread(),
        "main thread's name": threading.current_thread().name,
        "process name": multiprocessing.current_process().name,
        "children": len(multiprocessing.active_children()),
        "tracemalloc": tracemalloc.is_tracing(),
        "faulthandler": faulthandler.is_enabled(),
        "trace function": sys.gettrace() is None,
        "stdin": os.fstat(0).st_rdev,
        "session": os.getpgrp() == os.getpid(),
    }


def differing():
    return {
        "random": random.random(),
        "secrets": secrets.token_hex(),
        "uuid1": str(uuid.uuid1()),
        "uuid4": str(uuid.uuid4()),
        "temporary file": tempfile.mktemp(),
    }


def probe(worker):
    told = {"facts": facts(), "differing": differing()}
    with open(f"{HERE}/{worker.name}.json.new", "w") as file:
        json.dump(told, file)
    os.rename(f"{HERE}/{worker.name}.json.new", f"{HERE}/{worker.name}.json")
    worker.ready()
    worker.stopping.wait()


application = Application(services=[
    Service("forked", probe, backend="sync", count=3),
    Service("execd", probe, backend="sync", start_method="exec"),
])
"""

FACTS = (
    "environment set by the import",
    "environment changed by the import",
    "environment removed by the import",
    "environment",
    "collector",
    "collector's thresholds",
    "recursion limit",
    "switch interval",
    "directory",
    "umask",
    "warning filters",
    "locale",
    "handlers",
    "signal mask",
    "timer",
    "limits",
    "default timeout",
    "import path",
    "excepthook",
    "thread excepthook",
    "root logger",
    "integer digits",
    "stdout",
    "arguments",
    "flags",
    "main thread",
    "main thread's name",
    "process name",
    "children",
    "tracemalloc",
    "faulthandler",
    "trace function",
    "stdin",
    "session",
)


IMMORTAL = pytest.mark.skipif(
    not (3, 12) <= sys.version_info[:2] <= (3, 13),
    reason="immortal_preload needs CPython 3.12 or 3.13",
)


@pytest.fixture(
    scope="module",
    params=["plain", pytest.param("immortal", marks=IMMORTAL)],
)
def told(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Return the facts that each worker of one application has recorded."""
    service = _PROBE
    if request.param == "immortal":
        service = service.replace("\n])\n", "\n], immortal_preload=True)\n")
    environment = {
        "CHANGED_BY_IMPORT": "base",
        "REMOVED_BY_IMPORT": "still here",
        "PYTHONTRACEMALLOC": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    with open_serving(service, environment=environment) as serving:
        yield {
            name: {
                **json.loads((serving.directory / f"{name}.json").read_text()),
                "command line": describe(process_id),
            }
            for name, process_id in serving.pids("forked", "execd").items()
        }


@pytest.mark.parametrize("name", ["forked.0", "execd.0"])
def test_command_line_names_worker(told: dict[str, Any], name: str) -> None:
    assert f" {name} (service.py)" in told[name]["command line"]


def test_every_fact_is_compared(told: dict[str, Any]) -> None:
    assert set(told["execd.0"]["facts"]) == set(FACTS)


@pytest.mark.parametrize("fact", FACTS)
def test_forked_worker_has_same_facts_as_execd(told: dict[str, Any], fact: str) -> None:
    assert told["forked.0"]["facts"][fact] == told["execd.0"]["facts"][fact]


@pytest.mark.parametrize(
    "fact", ["random", "secrets", "uuid1", "uuid4", "temporary file"]
)
def test_workers_differ_where_required(told: dict[str, Any], fact: str) -> None:
    assert len({worker["differing"][fact] for worker in told.values()}) == 4
