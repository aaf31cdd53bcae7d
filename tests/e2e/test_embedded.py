"""Test a controller inside another program, with `open_controller`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.kits.embedded_targets import (
    CountingMonitor,
    crash,
    tell_references,
    work,
    work_sync,
)
from tests.kits.serving import environment_of_children, is_alive, short_directory
from trio_supervisor import (
    Application,
    Command,
    Controller,
    RestartLimitError,
    Service,
    SpecError,
    open_client,
    open_controller,
)
from trio_supervisor.controller.controller import core_of
from trio_supervisor.errors import NoSuchWorkerError, UnavailableError

PATIENCE = 60


@pytest.fixture
def path() -> Iterator[Path]:
    """Return the path of the supervisor's socket."""
    with short_directory() as directory:
        yield directory / "supervisor.ipc"


def application(**settings: Any) -> Application:
    """Return an application of two services with importable functions."""
    return Application(
        services=[
            Service("web", work, count=2, **settings),
            Service("jobs", work_sync, backend="sync"),
        ]
    )


def process_ids(controller: Controller) -> list[int]:
    """Return the pids of all workers and of the supervisor."""
    found = [worker.process_id for worker in controller.workers]
    supervisor = core_of(controller).supervisor
    assert supervisor.process is not None
    found.append(supervisor.process.pid)
    return [pid for pid in found if pid is not None]


def assert_nothing_left(path: Path, pids: list[int]) -> None:
    """Check that no process, socket or lock file is left."""
    assert pids
    assert not [pid for pid in pids if is_alive(pid)]
    assert os.listdir(path.parent) == []


async def test_open_controller_runs_until_block_ends(path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with open_controller(application(), socket_path=str(path)) as controller:
            await controller.wait_ready()

            names = [worker.name for worker in controller.workers]
            assert names == ["web.0", "web.1", "jobs.0"]
            assert {worker.state for worker in controller.workers} == {"ready"}
            pids = process_ids(controller)
            assert len(set(pids)) == 4
            assert all(is_alive(pid) for pid in pids)

    assert_nothing_left(path, pids)


@pytest.mark.skipif(
    not (3, 12) <= sys.version_info[:2] <= (3, 13),
    reason="immortal_preload needs CPython 3.12 or 3.13",
)
@pytest.mark.parametrize("is_immortal", [False, True])
async def test_preload_is_immortal_if_declared(path: Path, is_immortal: bool) -> None:
    declared = Application(
        [Service("web", tell_references, backend="sync")], immortal_preload=is_immortal
    )
    with trio.fail_after(PATIENCE):
        async with (
            open_controller(declared, socket_path=str(path)) as controller,
            open_client(str(path)) as client,
        ):
            await controller.wait_ready()
            text = ""
            while not text:
                text = (await client.workers())[0].status
                await trio.sleep(0.01)
    assert (int(text) > 2**31) is is_immortal


async def test_controller_controls_workers(path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with open_controller(application(), socket_path=str(path)) as controller:
            await controller.wait_ready()
            before = {w.name: w.process_id for w in controller.workers}

            await controller.restart("web.1")
            await controller.stop("jobs")

            after = {w.name: w for w in controller.workers}
            assert after["web.0"].process_id == before["web.0"]
            assert after["web.1"].process_id != before["web.1"]
            assert (after["web.1"].restarts, after["web.1"].state) == (1, "ready")
            assert (after["jobs.0"].process_id, after["jobs.0"].state) == (
                None,
                "stopped",
            )

            await controller.wait_ready()  # does not wait for stopped workers
            await controller.start("jobs.0")
            assert {w.state for w in controller.workers} == {"ready"}

            await controller.restart()
            assert [w.restarts for w in controller.workers] == [1, 2, 2]

            with pytest.raises(
                NoSuchWorkerError, match=r"no worker or service.*'nope'"
            ):
                await controller.restart("web", "nope")
            assert [w.restarts for w in controller.workers] == [1, 2, 2]


async def test_controller_reports_events(path: Path) -> None:
    kinds: list[str] = []
    with trio.fail_after(PATIENCE):
        async with open_controller(
            application(),
            socket_path=str(path),
            on_event=lambda event: kinds.append(event.kind),
        ) as controller:
            await controller.wait_ready()

    assert kinds[0] == "serving"
    assert kinds.count("ready") == 4
    assert kinds.count("all_ready") == 1
    assert kinds[-2:] == ["exited", "stopped"]


async def test_monitors_are_pickled_for_supervisor(path: Path) -> None:
    """Their attributes are pickled with them."""
    with trio.fail_after(PATIENCE):
        async with open_controller(
            Application(services=[], monitors=[CountingMonitor()]),
            socket_path=str(path),
        ) as controller:
            await controller.wait_ready()
            runs: list[int] = []

            def take(fields: dict[str, Any]) -> None:
                runs.append(fields["counting_monitor"]["runs"])

            async with open_client(str(path)) as client:
                while len(runs) < 2 or runs[-1] == 0:
                    await client.status(take)

    assert runs == sorted(runs)


async def test_cancelled_block_stops_everything(path: Path) -> None:
    with trio.fail_after(PATIENCE):
        with trio.CancelScope() as scope:
            async with open_controller(
                application(), socket_path=str(path)
            ) as controller:
                await controller.wait_ready()
                pids = process_ids(controller)
                scope.cancel()
                await trio.sleep_forever()

    assert scope.cancelled_caught
    assert_nothing_left(path, pids)


async def test_error_in_block_is_raised_unchanged(path: Path) -> None:
    """It is raised after everything has stopped, and not in a group."""
    pids: list[int] = []

    async def fail() -> None:
        async with open_controller(application(), socket_path=str(path)) as controller:
            await controller.wait_ready()
            pids.extend(process_ids(controller))
            raise LookupError("mine")

    with trio.fail_after(PATIENCE), pytest.raises(LookupError, match=r"^mine$"):
        await fail()
    assert_nothing_left(path, pids)


async def test_restart_limit_raises_single_error(path: Path) -> None:
    crashing = Service("bad", crash, backend="sync", intensity=1, backoff=None)
    pids: list[int] = []
    with trio.fail_after(PATIENCE):
        limit = r"^bad\.0: restart limit reached \(intensity=1"
        with pytest.raises(RestartLimitError, match=limit):
            async with open_controller(
                Application(services=[Service("web", work), crashing]),
                socket_path=str(path),
                on_event=lambda event: pids.append(getattr(event, "process_id", 0)),
            ):
                await trio.sleep_forever()

    assert_nothing_left(path, [pid for pid in pids if pid not in (0, os.getpid())])


async def test_wait_ready_for_failed_worker_raises(path: Path) -> None:
    crashing = Service("bad", crash, backend="sync", restart="never")
    with trio.fail_after(PATIENCE):
        async with open_controller(
            Application(services=[crashing]), socket_path=str(path)
        ) as controller:
            with pytest.raises(UnavailableError, match=r"bad\.0 failed: exit code 9"):
                await controller.wait_ready()


async def test_target_that_cannot_be_imported_is_rejected(path: Path) -> None:
    async def local(worker: object) -> None:
        raise AssertionError

    with pytest.raises(SpecError, match=r"^services\[0\]\.target: cannot be imported"):
        async with open_controller(
            Application(services=[Service("web", local)]), socket_path=str(path)
        ):
            raise AssertionError("the block was entered")
    assert os.listdir(path.parent) == []


async def serve_and_crash(path: Path) -> list[int]:
    """Serve, replace a killed worker, and stop; return the last pids."""
    with trio.fail_after(PATIENCE):
        async with open_controller(application(), socket_path=str(path)) as controller:
            await controller.wait_ready()
            victim = core_of(controller).children["web.0"]
            assert victim.process is not None
            os.kill(victim.process.pid, signal.SIGKILL)
            while victim.restarts == 0:
                await victim.wait_news()
            await controller.wait_ready()
            return process_ids(controller)


def in_a_thread(path: Path) -> list[int]:
    """Run it in a thread, which cannot handle signals."""
    found: list[list[int]] = []
    thread = threading.Thread(
        target=lambda: found.append(trio.run(serve_and_crash, path))
    )
    thread.start()
    thread.join()
    return found[0]


def as_a_guest(path: Path) -> list[int]:
    """Run it inside an asyncio program."""

    async def host() -> list[int]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[int]] = loop.create_future()
        trio.lowlevel.start_guest_run(
            serve_and_crash,
            path,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=lambda outcome: done.set_result(outcome.unwrap()),
        )
        return await done

    return asyncio.run(host())


@pytest.mark.parametrize("run", [in_a_thread, as_a_guest])
def test_open_controller_without_signal_handling(
    path: Path, run: Callable[[Path], list[int]]
) -> None:
    before = {sig: signal.getsignal(sig) for sig in (signal.SIGTERM, signal.SIGINT)}

    assert_nothing_left(path, run(path))

    assert {sig: signal.getsignal(sig) for sig in before} == before


SCRIPT = """
import os
import sys
import trio
from trio_supervisor import Application, Command, Service, Worker, open_controller

async def work(worker: Worker) -> None:
    await worker.status(f"from {__name__}")
    await worker.ready()
    await worker.stopping.wait()

async def main() -> None:
    application = Application(
        services=[Service("web", work, count=2), Command("nap", ["sleep", "1000"])]
    )
    async with open_controller(application) as controller:
        with trio.fail_after(60):
            await controller.wait_ready()
        print(*[(worker.name, worker.state) for worker in controller.workers])
        sys.stdout.flush()
        if "stay" in sys.argv:
            await trio.sleep_forever()

if __name__ == "__main__":
    trio.run(main)
"""


def test_functions_of_main_script_are_importable(path: Path) -> None:
    """As with multiprocessing's spawn; the socket is in the script's directory."""
    script = path.parent / "script.py"
    script.write_text(SCRIPT)

    finished = subprocess.run(
        [sys.executable, "script.py"],
        cwd=path.parent,
        env=environment_of_children(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    states = "('web.0', 'ready') ('web.1', 'ready') ('nap.0', 'ready')\n"
    assert (finished.returncode, finished.stdout) == (0, states)
    assert "Traceback" not in finished.stderr
    assert set(os.listdir(path.parent)) <= {"script.py", "__pycache__"}


async def test_command_needs_no_import(path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with open_controller(
            Application(services=[Command("nap", ["sleep", "1000"])]),
            socket_path=str(path),
        ) as controller:
            await controller.wait_ready()
            assert controller.workers[0].state == "ready"
