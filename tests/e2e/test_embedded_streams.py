"""Iterating over events and logs of an embedded controller and of a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.kits.embedded_targets import work
from tests.kits.serving import short_directory
from trio_supervisor import (
    Application,
    CallFailedError,
    Command,
    Controller,
    NoSuchWorkerError,
    Service,
    UnavailableError,
    open_client,
    open_controller,
)
from trio_supervisor.link.entries import Entries

PATIENCE = 60


@pytest.fixture
def path() -> Iterator[Path]:
    """Yield a path for the socket."""
    with short_directory() as directory:
        yield directory / "supervisor.ipc"


def application() -> Application:
    """Return a service, and a command that prints."""
    shout = Command("shout", ["sh", "-c", "echo hello; echo again; exec sleep 1000"])
    return Application(services=[Service("web", work), shout])


async def test_events_of_controller_and_client_are_the_same(path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with open_controller(application(), socket_path=str(path)) as controller:
            await controller.wait_ready()
            async with (
                controller.events(follow=True) as events,
                open_client(str(path)) as client,
                client.events(follow=True) as seen,
            ):
                await client.restart("web")
                for entries in (events, seen):
                    async for event in entries:
                        if event["event"] == "started" and event["incarnation"] == 2:
                            break
            async with controller.events() as events, client_events(path) as seen:
                past = [event async for event in events]
                assert past == [event async for event in seen]
                assert {"web.0", "shout.0"} < {event["name"] for event in past}


@asynccontextmanager
async def client_events(path: Path) -> AsyncIterator[Entries]:
    """Yield the events that a client is sent."""
    async with open_client(str(path)) as client, client.events() as events:
        yield events


async def test_logs_of_controller_and_client_are_the_same(path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with (
            open_controller(
                application(), socket_path=str(path), output="text"
            ) as controller,
        ):
            await controller.wait_ready()
            async with controller.logs("shout", follow=True) as lines:
                assert (await anext(lines))["message"] == "hello"
                assert (await anext(lines))["message"] == "again"
            async with (
                open_client(str(path)) as client,
                client.logs("shout", tail=1) as lines,
            ):
                assert [line["message"] async for line in lines] == ["again"]
            with pytest.raises(NoSuchWorkerError):
                async with controller.logs("nope"):
                    pytest.fail("no worker has that name")


async def test_logs_fail_where_output_is_not_captured(path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with open_controller(application(), socket_path=str(path)) as controller:
            await controller.wait_ready()
            with pytest.raises(UnavailableError, match="output=None"):
                async with controller.logs():
                    pytest.fail("nothing is captured")
            async with open_client(str(path)) as client, client.logs() as lines:
                with pytest.raises(CallFailedError, match="is not captured"):
                    await anext(lines)


def test_a_controller_is_not_constructed_by_hand() -> None:
    with pytest.raises(TypeError, match="Controller has no public constructor"):
        Controller()  # type: ignore[call-arg]  # as a user would
