"""Test how the block of an embedded controller ends and what it raises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import FrameType

import pytest
import trio
from trio.lowlevel import currently_ki_protected

import trio_supervisor
from tests.kits.embedded_targets import work
from tests.kits.serving import environment_of_children, short_directory
from trio_supervisor import (
    Application,
    Command,
    Controller,
    Service,
    open_client,
    open_controller,
)
from trio_supervisor.process.kernel import child_pids

PATIENCE = 60
PACKAGE = str(Path(trio_supervisor.__file__).parent)


@pytest.fixture
def path() -> Iterator[str]:
    """Return the path of the supervisor's socket."""
    with short_directory() as directory:
        yield str(directory / "supervisor.ipc")


def application() -> Application:
    """Return a forked worker and a command that leaves a child in its group."""
    script = "sleep 1000 & exec sleep 1000"
    return Application(
        services=[Service("web", work), Command("nap", ["sh", "-c", script])]
    )


async def live(path: str) -> None:
    """Run the application until all workers are ready."""
    async with open_controller(application(), socket_path=path) as controller:
        await controller.wait_ready()


async def test_controller_code_is_protected_from_interrupts(path: str) -> None:
    """Each function that runs in the controller's program is protected.

    Exceptions are the constructors of declarations, which have nothing to clean up.
    """
    declared = application()
    found: Counter[str] = Counter()
    is_looking = False

    def look(frame: FrameType, event: str, _: object) -> None:
        nonlocal is_looking
        name = frame.f_code.co_filename
        if event != "call" or is_looking or not name.startswith(PACKAGE):
            return
        is_looking = True
        if not currently_ki_protected():
            found[f"{name.removeprefix(PACKAGE)}:{frame.f_code.co_qualname}"] += 1
        is_looking = False

    with trio.fail_after(PATIENCE):
        sys.setprofile(look)
        try:
            async with open_controller(declared, socket_path=path) as controller:
                await controller.wait_ready()
                await controller.restart("web")
                await controller.stop("nap")
        finally:
            sys.setprofile(None)

    is_made = {name for name in found if "open_block" in name}
    assert set(found) == is_made


async def test_embedding_program_keeps_its_children_and_gets_no_zombies(
    path: str,
) -> None:
    before = child_pids()
    own = subprocess.Popen(["sh", "-c", "exit 7"])  # noqa: ASYNC220 (a child of its own)
    with trio.fail_after(PATIENCE):
        async with open_controller(application(), socket_path=path) as controller:
            await controller.wait_ready()
            await controller.reload(application())
    assert child_pids() - before == {own.pid}
    assert own.wait() == 7


async def test_expired_deadline_leaves_socket_path_free(path: str) -> None:
    with trio.fail_after(PATIENCE):
        for _ in range(3):
            with trio.move_on_after(0) as scope:
                await live(path)
            assert scope.cancelled_caught
            with trio.move_on_after(0.02):
                await live(path)
            assert os.listdir(os.path.dirname(path)) == []
        await live(path)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, LookupError])
async def test_error_in_body_is_raised_alone(
    path: str, kind: type[BaseException]
) -> None:
    error = kind("mine")
    before = child_pids()
    with trio.fail_after(PATIENCE), pytest.raises(kind) as caught:
        async with open_controller(application(), socket_path=path):
            raise error
    assert caught.value is error
    assert child_pids() == before


async def test_error_in_on_event_is_raised_alone(path: str) -> None:
    def refuse(event: object) -> None:
        raise LookupError("the hook's")

    before = child_pids()
    with trio.fail_after(PATIENCE), pytest.raises(LookupError, match=r"^the hook's$"):
        async with open_controller(
            application(), socket_path=path, on_event=refuse
        ) as controller:
            await controller.wait_ready()
    assert child_pids() == before


async def test_error_in_client_body_is_raised_alone(path: str) -> None:
    with trio.fail_after(PATIENCE):
        async with open_controller(application(), socket_path=path):
            with pytest.raises(LookupError, match=r"^mine$"):
                async with open_client(path):
                    raise LookupError("mine")


async def generate(path: str) -> AsyncIterator[Controller]:
    """Keep a controller open while the generator lives."""
    async with open_controller(application(), socket_path=path) as controller:
        await controller.wait_ready()
        yield controller


def test_unfinished_generator_leaves_nothing(path: str) -> None:
    before = child_pids()
    kept: list[AsyncIterator[Controller]] = []

    async def main() -> None:
        kept.append(generate(path))
        controller = await anext(kept[0])
        assert controller.workers

    with pytest.raises(RuntimeError, match="stack corrupted"):  # trio's own message
        trio.run(_abandoning, main)
    assert child_pids() == before
    assert os.listdir(os.path.dirname(path)) == []


async def _abandoning(main: object) -> None:
    assert callable(main)
    with trio.fail_after(PATIENCE):
        await main()


async def test_two_controllers_are_independent(path: str) -> None:
    before = child_pids()
    with trio.fail_after(PATIENCE):
        async with open_controller(application(), socket_path=path) as first:
            with trio.move_on_after(PATIENCE) as scope:
                async with open_controller(
                    application(), socket_path=f"{path}2"
                ) as second:
                    await second.wait_ready()
                    scope.cancel()
            await first.wait_ready()
            assert {worker.restarts for worker in first.workers} == {0}
            thread = threading.Thread(target=trio.run, args=(live, f"{path}3"))
            thread.start()
            await trio.to_thread.run_sync(thread.join)
            await first.restart("web")
    assert child_pids() == before


PROGRAM = """
import os
import sys
import trio
from tests.kits.embedded_targets import work
from trio_supervisor import Application, Command, Service, open_controller

async def main():
    application = Application(
        services=[Service("web", work), Command("nap", ["sleep", "1000"])]
    )
    print("begin", flush=True)
    async with open_controller(application, on_event=lambda _: None) as controller:
        print("entered", flush=True)
        await controller.wait_ready()
        print("ready", flush=True)
        if "stop" in sys.argv:
            controller.shutdown()
            print("stopping", flush=True)
        await trio.sleep_forever()
    await trio.sleep_forever()

if __name__ == "__main__":
    try:
        trio.run(main)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize(
    ("word", "delay"),
    [
        ("begin", 0.0),
        ("begin", 0.005),
        ("begin", 0.01),
        ("entered", 0.0),
        ("entered", 0.05),
        ("ready", 0.0),
        ("stopping", 0.0),
    ],
)
def test_sigint_ends_program(path: str, word: str, delay: float) -> None:
    """It works at any moment; the delays only choose some of them."""
    directory = Path(path).parent
    temporary = directory / "tmp"
    temporary.mkdir()
    (directory / "program.py").write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, "program.py", *(["stop"] if word == "stopping" else [])],
        cwd=directory,
        env={**environment_of_children(), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == word:
            break
    threading.Event().wait(delay)
    process.send_signal(signal.SIGINT)
    printed, complained = process.communicate(timeout=PATIENCE)

    assert printed.split()[-1] == "interrupted"
    assert complained == ""
    assert os.listdir(temporary) == []
    assert set(os.listdir(directory)) <= {"program.py", "tmp", "__pycache__"}
    assert not [pid for pid in _all_of(temporary) if pid != process.pid]


def _all_of(temporary: Path) -> Iterator[int]:
    mark = f"TMPDIR={temporary}".encode()
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in place.read_bytes().split(b"\0"):
                yield int(place.parent.name)
        except OSError:
            continue
