"""Boot documents: written by the parent, read by the child through a descriptor."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from functools import partial
from typing import Any

import pytest

from trio_supervisor.errors import SpecError
from trio_supervisor.process.spawn.boot import (
    WorkerBoot,
    pickle_source,
    read_boot,
)
from trio_supervisor.process.spawn.code_source import Reference
from trio_supervisor.process.spawn.documents import open_document


def boot(**changes: Any) -> WorkerBoot:
    fields: dict[str, Any] = {
        "source": Reference("service.py:application", ("/a", "/b")),
        "name": "web.0",
        "service": "web",
        "index": 0,
        "incarnation": 1,
        "backend": "trio",
        "state": {"deep": [1, None, {"x": "ü"}]},
        "directory": None,
        "socket_path": "/run/s.ipc",
        "notify_path": "/run/notify",
        "stop_signal": signal.SIGTERM,
        "stop_timeout": 10.0,
        "heartbeat": 10.0,
        "switch_interval": 1e-4,
    }
    return WorkerBoot(**(fields | changes))


def at_top_level() -> str:
    """Return a value; a child can import this function."""
    return "called"


READ = (
    "from trio_supervisor.process.spawn.boot import WorkerBoot, read_boot\n"
    "boot, descriptors = read_boot(WorkerBoot)\n"
)


def run(boot: WorkerBoot, program: str, *more: int) -> str:
    """Return what *program* prints in a child with the document *boot*.

    It inherits the descriptors *more*.
    """
    with open_document(pickle.dumps(boot)) as document:
        descriptors = [document, *more]
        return subprocess.run(
            [sys.executable, "-c", READ + program, "title", *map(str, descriptors)],
            pass_fds=descriptors,
            capture_output=True,
            text=True,
            check=True,
        ).stdout


@pytest.mark.parametrize("size", [0, 10_000_000])
def test_read_boot_document_of_any_size(size: int) -> None:
    """Up to more than a pipe or a command line could hold."""
    told = boot(state={"text": size * "x"})
    text = run(told, "print(boot.name, len(boot.state['text']))")
    assert text.split() == ["web.0", str(size)]


def test_read_boot_returns_what_was_written() -> None:
    assert run(boot(), "print(boot)") == f"{boot()}\n"


def test_read_boot_returns_arguments_after_the_title_as_descriptors() -> None:
    """All are removed from ``sys.argv``."""
    read, write = os.pipe()
    program = "import os, sys\nos.write(descriptors[0], b'x')\nprint(sys.argv[1:])"
    assert run(boot(), program, write) == "[]\n"
    os.close(write)
    assert os.read(read, 10) == b"x"
    os.close(read)


def test_read_boot_closes_the_document() -> None:
    """The worker's own children must not be able to read it."""
    program = "import os; print(*os.listdir('/proc/self/fd'))"
    assert run(boot(), program).split() == ["0", "1", "2", "3"]  # 3: the listing's own


def test_document_is_not_inherited_by_other_children() -> None:
    with open_document(b"x") as document:
        assert not os.get_inheritable(document)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(document)


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["title"], ["title", "-1"], ["title", "3", "x"]]
)
def test_read_boot_started_by_hand_exits_with_message(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["worker", *arguments])
    with pytest.raises(SystemExit, match="by a trio_supervisor controller"):
        read_boot(WorkerBoot)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda: None, id="a lambda"),
        pytest.param(open(os.devnull, encoding="utf-8"), id="an open file"),  # noqa: SIM115
        pytest.param((x for x in "ab"), id="a generator"),
    ],
)
def test_pickle_source_unimportable_value_raises_spec_error(value: object) -> None:
    with pytest.raises(SpecError, match="define it at the top level") as caught:
        pickle_source("services[0].target", value)
    assert caught.value.field == "services[0].target"


def test_unpickle_source_imports_module_of_function() -> None:
    source = pickle_source("target", at_top_level)
    program = (
        "from trio_supervisor.process.spawn.boot import unpickle_source\n"
        "print(unpickle_source(boot.source)())"
    )
    assert run(boot(source=source), program) == "called\n"


def test_pickle_source_omits_authkey() -> None:
    """The key authenticates multiprocessing's connections."""
    preparation = pickle_source("target", at_top_level).preparation
    assert "authkey" not in preparation
    assert preparation["sys_path"]


def test_pickle_source_nested_function_error_names_it() -> None:
    """The error also says where it is defined."""

    def inner(worker: object) -> None: ...

    with pytest.raises(
        SpecError, match=r"\(inner is defined inside test_pickle_source"
    ):
        pickle_source("services[0].target", inner)
    with pytest.raises(SpecError, match=r"\(a lambda has no name\)"):
        pickle_source("services[0].target", partial(lambda worker: None))


@pytest.mark.parametrize("words", [["-c"], ["-"]], ids=["-c", "standard input"])
def test_pickle_source_main_module_without_file_error_names_function(
    words: list[str],
) -> None:
    """Otherwise each worker would crash when it imports its function."""
    code = (
        "from trio_supervisor.process.spawn.boot import pickle_source\n"
        "async def work(worker): ...\n"
        "pickle_source('services[0].target', work)\n"
    )
    is_argument = words == ["-c"]
    result = subprocess.run(
        [sys.executable, *words, *([code] if is_argument else [])],
        input="" if is_argument else code,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "services[0].target: work is defined in __main__" in result.stderr
