"""The lifespan of an application, and its failures, under both event loops."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from trio_supervisor.contrib.lifespan import LifespanMode, open_lifespan
from trio_supervisor.contrib.traffic import AsgiApp, Message, Receive, Scope, Send
from trio_supervisor.errors import SupervisorError

PATIENCE = 30


@pytest.fixture(params=["trio", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[AsgiApp, LifespanMode], object]:
    """Return a function that runs a lifespan, and returns the application's state."""

    async def main(app: AsgiApp, mode: LifespanMode) -> object:
        with anyio.fail_after(PATIENCE):
            async with open_lifespan(app, mode) as state:
                return dict(state)

    def run(app: AsgiApp, mode: LifespanMode = "auto") -> object:
        return anyio.run(main, app, mode, backend=request.param)

    return run


Run = Callable[..., object]


def app_of(*steps: str | Exception) -> tuple[AsgiApp, list[str]]:
    """Return an application that does *steps*, and a list of what it received."""
    received: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        for step in steps:
            match step:
                case Exception():
                    raise step
                case "receive":
                    received.append((await receive())["type"])
                    scope["state"]["pool"] = 1
                case _:
                    await send({"type": step, "message": "no database"})

    return app, received


GOOD = (
    *("receive", "lifespan.startup.complete"),
    *("receive", "lifespan.shutdown.complete"),
)


def test_application_starts_up_and_shuts_down(run: Run) -> None:
    app, received = app_of(*GOOD)
    assert run(app) == {"pool": 1}
    assert received == ["lifespan.startup", "lifespan.shutdown"]


def test_lifespan_off_is_not_called(run: Run) -> None:
    app, received = app_of(*GOOD)
    assert run(app, "off") == {}
    assert received == []


@pytest.mark.parametrize(
    "steps",
    [(NotImplementedError("lifespan"),), ("receive", "http.response.start"), ()],
    ids=["raises", "answers as if it were a request", "returns"],
)
def test_application_without_a_lifespan_is_served(
    run: Run, steps: tuple[str | Exception, ...]
) -> None:
    app, _ = app_of(*steps)
    run(app)


def test_missing_lifespan_is_an_error_if_it_is_on(run: Run) -> None:
    app, _ = app_of(NotImplementedError("no lifespan"))
    with pytest.raises(NotImplementedError, match="no lifespan"):
        run(app, "on")


@pytest.mark.parametrize(
    "steps",
    [
        ("receive", OSError("refused")),
        ("receive", "lifespan.startup.failed", OSError("refused")),
        (*GOOD[:3], OSError("refused")),
    ],
    ids=["in startup", "in startup, after reporting it", "in shutdown"],
)
def test_own_exception_of_the_application_is_raised(
    run: Run, steps: tuple[str | Exception, ...]
) -> None:
    """Not a group with it, nor an error of ours."""
    app, _ = app_of(*steps)
    with pytest.raises(OSError, match="refused"):
        run(app)


def test_failure_without_an_exception_is_an_error(run: Run) -> None:
    app, _ = app_of("receive", "lifespan.startup.failed")
    with pytest.raises(SupervisorError, match="lifespan startup failed: no database"):
        run(app)


def test_exception_of_the_block_is_raised(run: Run) -> None:
    app, received = app_of(*GOOD)

    async def main() -> None:
        async with open_lifespan(app):
            raise ValueError("of the server")

    with pytest.raises(ValueError, match="of the server"):
        anyio.run(main)
    assert received == ["lifespan.startup"]


def test_application_that_keeps_receiving_is_left_alone(run: Run) -> None:
    """It would receive nothing more: its task is cancelled."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message: Message = await receive()
            await send({"type": f"{message['type']}.complete"})

    assert run(app) == {}
