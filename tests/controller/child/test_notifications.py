"""What a child hears of its process, over real sockets of this process."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from attrs import define, field

from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import ChildPlan
from trio_supervisor.controller.child.notifications import NotificationRouter
from trio_supervisor.controller.events import Event
from trio_supervisor.process.child import Process
from trio_supervisor.process.notify.channel import Channel, open_channel
from trio_supervisor.process.notify.sd_notify import Notifier, open_notifier
from trio_supervisor.tasks import ProtectedNursery

OWN = os.getpgrp()


@define(eq=False)
class Nobody:
    """Hears nothing of a child."""

    def on_change(self, child: Child) -> None:
        pass

    def on_process(self, child: Child, process: Process, is_running: bool) -> None:
        pass

    def on_event(self, event: Event) -> None:
        pass


@define(eq=False)
class Office:
    """The receiver of notifications, a child, and the socket of its process."""

    router: NotificationRouter
    nursery: trio.Nursery
    channel: Channel
    notifier: Notifier
    child: Child = field(init=False)

    def __attrs_post_init__(self) -> None:
        plan = ChildPlan(name="web.0", service="web")
        self.child = Child(plan, _never, Nobody(), random.Random(0))

    async def wait_status(self, text: str) -> None:
        with trio.fail_after(60):
            while self.child.status != text:
                await self.child.wait_news()


async def _never(_: int) -> Process:
    raise AssertionError("it is not started here")


@pytest.fixture
def directory() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        yield os.path.join(path, "ours")


@asynccontextmanager
async def open_office(directory: str, *, is_abstract: bool) -> AsyncIterator[Office]:
    os.mkdir(directory)
    channel = open_channel(directory, is_ours=is_abstract, is_abstract=is_abstract)
    inherited = [os.dup(each) for each in channel.descriptors]
    channel.keep()
    with open_notifier(channel.address, inherited) as notifier:
        async with trio.open_nursery() as nursery:
            router = NotificationRouter(lambda: ProtectedNursery(nursery), directory)
            yield Office(router, nursery, channel, notifier)
            router.remove(OWN)
            nursery.cancel_scope.cancel()


async def test_what_was_said_before_it_is_known_is_heard(directory: str) -> None:
    async with open_office(directory, is_abstract=True) as office:
        office.notifier.send("STATUS=early")
        office.router.add(OWN, office.child, office.channel)
        await office.wait_status("early")
        assert list(office.router.children) == [OWN]


async def test_a_heartbeat_is_seen_when_it_is_looked_for(directory: str) -> None:
    async with open_office(directory, is_abstract=True) as office:
        office.router.add(OWN, office.child, office.channel)
        assert office.child._watch.heartbeat_age() is None
        office.notifier.beat()
        age = office.child._watch.heartbeat_age()
        assert age is not None
        assert 0 <= age < 60


async def test_at_the_end_nothing_waits_any_more(directory: str) -> None:
    async with open_office(directory, is_abstract=True) as office:
        office.router.add(OWN, office.child, office.channel)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(office.nursery.child_tasks) == len(office.channel.receivers) == 2
        office.router.remove(OWN)
        office.router.remove(OWN)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not office.nursery.child_tasks
        assert not office.router.children
        assert office.child._watch.heartbeat_age() is None
        office.child.read_notifications()


async def test_one_that_is_gone_before_it_is_listened_to_breaks_nothing(
    directory: str,
) -> None:
    async with open_office(directory, is_abstract=True) as office:
        office.router.add(OWN, office.child, office.channel)
        office.router.remove(OWN)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not office.nursery.child_tasks


async def test_a_path_that_was_removed_is_made_again_and_said(
    directory: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where there are no abstract sockets."""
    async with open_office(directory, is_abstract=False) as office:
        office.router.add(OWN, office.child, office.channel)
        shutil.rmtree(directory)
        with trio.fail_after(60):
            while not os.path.lexists(office.channel.address):  # noqa: ASYNC110, ASYNC240
                await trio.sleep(0.01)
        office.notifier.send("STATUS=there again")
        await office.wait_status("there again")
        assert [record.getMessage() for record in caplog.records] == [
            "web.0: its notification socket was removed; recreated"
        ]
