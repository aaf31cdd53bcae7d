"""Fixtures for tests of programs that use this package; a plugin of pytest.

It is loaded with every pytest of an environment, so it imports the rest on first use.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from trio_supervisor import Application, Controller
    from trio_supervisor.testing import Chaos

    OpenTest = Callable[..., AbstractAsyncContextManager[Controller]]


@pytest.fixture
def controller(request: pytest.FixtureRequest) -> Iterator[OpenTest]:
    """Run applications with real processes in a directory of the test's own.

    The fixture is a function: ``async with controller(application) as running:``, with
    the arguments of `open_controller`. A test fails if it leaves a process, a
    descriptor or a file behind; the processes are then killed.
    """
    from trio_supervisor import open_controller

    directory = Path(tempfile.mkdtemp(prefix="ts-"))
    before = _Belongings.now()

    def open_here(
        application: Application, **options: Any
    ) -> AbstractAsyncContextManager[Controller]:
        options.setdefault("socket_path", str(directory / "supervisor.ipc"))
        return open_controller(application, **options)

    try:
        yield open_here
        left = _Belongings.now().since(before) + [
            f"file {path.name}" for path in directory.iterdir()
        ]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if left:
        name = request.node.nodeid
        pytest.fail(f"{name} left behind: {', '.join(left)}", pytrace=False)


@pytest.fixture
def chaos(request: pytest.FixtureRequest) -> Chaos:
    """Return what hurts real processes; ``chaos.run(controller, seconds=5)``.

    Its seed is printed, and given by ``@pytest.mark.chaos(seed=7)``.
    """
    from trio_supervisor.testing import Chaos

    marker = request.node.get_closest_marker("chaos")
    seed = int.from_bytes(os.urandom(2))
    if marker is not None:
        seed = marker.kwargs.get("seed", seed)
    print(f"repeat with @pytest.mark.chaos(seed={seed})")
    return Chaos(seed)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    line = "chaos(seed): the seed of the fixture chaos of trio_supervisor"
    config.addinivalue_line("markers", line)


class _Belongings:
    """The children and descriptors of this process at one moment."""

    def __init__(self, processes: dict[int, Any], descriptors: dict[int, str]) -> None:
        self._processes = processes
        self._descriptors = descriptors

    @classmethod
    def now(cls) -> _Belongings:
        import psutil

        children = psutil.Process().children(recursive=True)
        return cls({one.pid: one for one in children}, dict(_descriptors()))

    def since(self, before: _Belongings) -> list[str]:
        """Describe what was not there *before*; kill the processes of it."""
        import psutil

        left = []
        for process_id in self._processes.keys() - before._processes.keys():
            process = self._processes[process_id]
            try:
                left.append(f"process {process_id} ({' '.join(process.cmdline())})")
                process.kill()
                process.wait(10)
            except psutil.NoSuchProcess:
                continue
        for number, what in self._descriptors.items():
            if before._descriptors.get(number) != what:
                left.append(f"descriptor {number} ({what})")
        return left


def _descriptors() -> Iterator[tuple[int, str]]:
    for name in os.listdir("/dev/fd"):
        try:
            yield int(name), os.readlink(f"/dev/fd/{name}")
        except OSError:  # that of the listing itself
            continue
