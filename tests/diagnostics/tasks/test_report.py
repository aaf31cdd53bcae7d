"""The tree of tasks: of trio and of asyncio, as another thread sees it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kits.diagnostics import from_another_thread
from trio_supervisor.diagnostics.tasks.main_loop import (
    MainLoop,
    current_main_loop,
    find_main_loop,
)
from trio_supervisor.diagnostics.tasks.report import scheduler_report
from trio_supervisor.wire.codec import parse_result, to_fields
from trio_supervisor.wire.reports import SchedulerReport, Task


def look() -> SchedulerReport:
    """Return what another thread sees of the loop that the caller runs."""
    main = current_main_loop()
    return from_another_thread(lambda: scheduler_report(main))


def named(report: SchedulerReport, name: str) -> Task:
    (task,) = [task for task in report.tasks if task.name == name]
    return task


def children(report: SchedulerReport, task: Task) -> list[str]:
    nurseries = {n.id for n in report.nurseries if n.task == task.id}
    return [t.name for t in report.tasks if t.nursery in nurseries]


def functions(report: SchedulerReport, task: Task) -> list[str]:
    return [f.function.rpartition(".")[2] for f in report.stacks[task.stack]]


async def wait_inner() -> None:
    await trio.sleep_forever()


async def wait_outer() -> None:
    await wait_inner()


async def listen() -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait_outer, name="connection")


async def test_trio_report_has_nurseries_and_stacks() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, name="listener")
        await trio.testing.wait_all_tasks_blocked()
        report = look()
        nursery.cancel_scope.cancel()
    assert report.loops == ("trio",)
    listener = named(report, "listener")
    assert listener.state == "blocked"
    assert not listener.is_system
    assert children(report, listener) == ["connection"] * 3
    found = [task for task in report.tasks if task.name == "connection"]
    for task in found:
        assert functions(report, task)[:3] == [
            "wait_outer",
            "wait_inner",
            "sleep_forever",
        ]
    assert len({task.stack for task in found}) == 1
    assert "×3" in report.data  # noqa: RUF001 (as people write it)


async def test_trio_report_has_each_tasks_own_line() -> None:
    async def first_or_second(is_first: bool) -> None:
        if is_first:
            await trio.sleep_forever()  # the first
        await trio.sleep_forever()  # the second

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first_or_second, True, name="first")
        nursery.start_soon(first_or_second, False, name="second")
        await trio.testing.wait_all_tasks_blocked()
        report = look()
        nursery.cancel_scope.cancel()
    first, second = named(report, "first"), named(report, "second")
    lines = [report.stacks[task.stack][0].line for task in (first, second)]
    assert lines[1] == lines[0] + 1


async def test_running_trio_task_has_full_stack() -> None:
    report = look()
    (running,) = [task for task in report.tasks if task.state == "running"]
    found = functions(report, running)
    assert found.index("look") < found.index("from_another_thread")
    name = test_running_trio_task_has_full_stack.__name__
    assert found[0] == name or name in found
    assert "▶" in report.data


async def test_runnable_trio_task_is_not_blocked() -> None:
    async def turn() -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn, name="fresh")
        assert named(look(), "fresh").state == "runnable"
        await trio.testing.wait_all_tasks_blocked()
        assert named(look(), "fresh").state == "blocked"
        nursery.cancel_scope.cancel()
        assert named(look(), "fresh").state == "runnable"
        assert named(look(), "fresh").is_cancelled


async def test_trio_system_tasks_are_marked() -> None:
    report = look()
    system = [task for task in report.tasks if task.is_system]
    assert "<TrioToken.run_sync_soon task>" in [task.name for task in system]
    assert not any(task.is_system for task in report.tasks if task.state == "running")
    assert "[system]" in report.data


async def test_trio_scopes_have_time_left() -> None:
    shield = trio.CancelScope(shield=True)

    async def hurry() -> None:
        with trio.fail_after(60), shield:
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hurry, name="hurried")
        nursery.cancel_scope.deadline = trio.current_time() + 300
        await trio.testing.wait_all_tasks_blocked()
        report = look()
        shield.cancel()
        nursery.cancel_scope.cancel()
    task = named(report, "hurried")
    outer, inner = task.scopes
    assert outer.deadline == pytest.approx(60, abs=5)
    assert not outer.is_shielded
    assert inner.deadline is None
    assert inner.is_shielded
    (around,) = [n for n in report.nurseries if n.id == task.nursery]
    assert around.scope.deadline == pytest.approx(300, abs=5)


async def test_report_does_not_cancel_expired_scope() -> None:
    """As ``CancelScope.cancel_called`` would, by the clock of whoever asks."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_inner)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.deadline = trio.current_time() - 100
        report = look()
        assert not any(n.scope.is_cancelled for n in report.nurseries)
        overdue = [n.scope.deadline for n in report.nurseries if n.scope.deadline]
        assert overdue == [pytest.approx(-100, abs=5)]
        nursery.cancel_scope.deadline = trio.current_time() + 3600
        assert "s ago]" in report.data
        nursery.cancel_scope.cancel()


async def test_stack_includes_async_generator() -> None:
    """Python does not say whom ``asend`` drives."""

    async def numbers() -> AsyncIterator[int]:
        await wait_inner()
        yield 1

    async def consume() -> None:
        async for _ in numbers():
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume, name="consumer")
        await trio.testing.wait_all_tasks_blocked()
        report = look()
        nursery.cancel_scope.cancel()
    found = functions(report, named(report, "consumer"))
    assert found[:3] == ["consume", "numbers", "wait_inner"]


async def test_report_without_private_trio_api_is_shorter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here: names that its next version might not have."""
    from trio_supervisor.diagnostics.tasks import trio_tasks

    real = getattr
    gone = {"_cancel_status", "_abort_func", "_counter", "_scope", "_parent"}

    def getattr_without(thing: object, name: str, *default: object) -> Any:
        return default[0] if name in gone else real(thing, name, *default)

    monkeypatch.setattr(trio_tasks, "getattr", getattr_without, raising=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, name="listener")
        await trio.testing.wait_all_tasks_blocked()
        report = look()
        nursery.cancel_scope.cancel()
    assert children(report, named(report, "listener")) == ["connection"] * 3


async def leaf() -> None:
    await asyncio.sleep(3600)


async def gathers() -> None:
    await asyncio.gather(leaf(), leaf())


async def waits() -> None:
    await asyncio.wait([asyncio.create_task(leaf()) for _ in range(2)])


async def waits_for() -> None:
    await asyncio.wait_for(asyncio.create_task(leaf()), 3600)


async def shields() -> None:
    await asyncio.shield(leaf())


async def awaits() -> None:
    await asyncio.create_task(leaf())


async def groups() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(leaf())


async def groups_and_goes_on() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(leaf())
        await asyncio.sleep(3600)


async def groups_by_anyio() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(leaf)


def asyncio_report(
    *functions: Callable[[], Coroutine[Any, Any, None]],
) -> SchedulerReport:
    """Return what is seen of these, each in its own task that has its name."""

    async def main() -> SchedulerReport:
        tasks = [
            asyncio.create_task(function(), name=function.__name__)
            for function in functions
        ]
        main_loop = current_main_loop()
        while True:
            await asyncio.sleep(0)
            report = from_another_thread(lambda: scheduler_report(main_loop))
            if all(t.state != "runnable" for t in report.tasks):
                break
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return report

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (gathers, 2),
        (waits, 2),
        (waits_for, 1),
        (shields, 1),
        (awaits, 1),
        (groups, 1),
        (groups_and_goes_on, 1),
        (groups_by_anyio, 1),
    ],
)
def test_asyncio_report_has_awaiters(
    function: Callable[[], Coroutine[Any, Any, None]], count: int
) -> None:
    """By whichever way one asyncio task waits for others."""
    report = asyncio_report(function)
    assert report.loops == ("asyncio",)
    awaiter = named(report, function.__name__)
    found = [task for task in report.tasks if task.awaited_by == (awaiter.id,)]
    assert len(found) == count
    for task in found:
        assert functions(report, task)[-2:] == ["leaf", "sleep"]
    lines = report.data.splitlines()
    below = lines[lines.index(next(li for li in lines if function.__name__ in li)) + 1]
    assert below.strip().startswith("╰─ ⏸ leaf")


def test_running_asyncio_task_is_marked() -> None:
    report = asyncio_report(awaits)
    (running,) = [task for task in report.tasks if task.state == "running"]
    assert functions(report, running)[0] == "main"
    assert "from_another_thread" in functions(report, running)


def test_report_without_loop_says_so() -> None:
    report = scheduler_report(MainLoop())
    assert report == SchedulerReport(data="no event loop")


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_loop_started_by_target_is_found(backend: str) -> None:
    """By the thread's stack, from another thread."""
    ident = threading.get_ident()

    async def main() -> SchedulerReport:
        return from_another_thread(lambda: scheduler_report(find_main_loop(ident)))

    # Not in this thread, where a loop of the test's own may run.
    report = anyio.run(main, backend=backend)
    assert report.loops == (backend,)
    assert "main" in report.data
    assert find_main_loop(-1).names == ()


def test_deep_nurseries_are_reported_flat() -> None:
    """The protocol limits nesting; text ends where nobody could read it."""

    async def descend(depth: int, done: list[SchedulerReport]) -> None:
        if not depth:
            done.append(look())
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(descend, depth - 1, done)

    found: list[SchedulerReport] = []
    trio.run(descend, 200, found)
    (report,) = found
    assert len(report.tasks) > 200
    assert "…" in report.data
    assert parse_result(to_fields(report), SchedulerReport) == report


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_report_tolerates_tasks_that_start_and_exit(backend: str) -> None:
    """A thread looks all the time while tasks come and go."""
    seen: list[int] = []
    errors: list[BaseException] = []

    async def brief() -> None:
        await anyio.lowlevel.checkpoint()

    async def main() -> None:
        main_loop, stop = current_main_loop(), threading.Event()

        def watch() -> None:
            try:
                while not stop.is_set():
                    seen.append(len(scheduler_report(main_loop).tasks))
            except BaseException as exc:
                errors.append(exc)

        thread = threading.Thread(target=watch)
        thread.start()
        while not errors and len([count for count in seen if count > 1]) < 50:
            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(brief)
        stop.set()
        thread.join()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        anyio.run(main, backend=backend)
    finally:
        sys.setswitchinterval(interval)
    assert not errors


@settings(max_examples=20, deadline=None)
@given(st.recursive(st.just([]), lambda inner: st.lists(inner, max_size=4)))
def test_report_has_every_task_once(tree: Any) -> None:
    """With the parent that it has."""

    async def grow(branches: Any) -> None:
        if not branches:
            await trio.sleep_forever()
        async with trio.open_nursery() as nursery:
            for number, branch in enumerate(branches):
                nursery.start_soon(grow, branch, name=str(number))

    async def main() -> SchedulerReport:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(grow, tree, name="top")
            await trio.testing.wait_all_tasks_blocked()
            report = look()
            nursery.cancel_scope.cancel()
        return report

    report = trio.run(main)
    by_nursery: dict[int | None, list[Task]] = {}
    for task in report.tasks:
        by_nursery.setdefault(task.nursery, []).append(task)
    nurseries = {n.task: n.id for n in report.nurseries}

    def regrow(task: Task) -> Any:
        inner = by_nursery.get(nurseries.get(task.id, -1), [])
        return [regrow(t) for t in sorted(inner, key=lambda t: int(t.name))]

    assert regrow(named(report, "top")) == tree
    assert len({task.id for task in report.tasks}) == len(report.tasks)


def test_main_loop_of_another_thread_is_distinguished() -> None:
    """The agent has a loop of its own: only the main one's tasks are told."""

    async def agent() -> SchedulerReport:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever, name="of the agent")
            report = scheduler_report(main_loop)
            nursery.cancel_scope.cancel()
        return report

    main_loop = MainLoop()

    async def main() -> SchedulerReport:
        nonlocal main_loop
        main_loop = current_main_loop()
        return await trio.to_thread.run_sync(trio.run, agent)

    report = trio.run(main)
    assert "of the agent" not in [task.name for task in report.tasks]
    assert any("main" in task.name for task in report.tasks)
