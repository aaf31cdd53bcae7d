"""Questions to a policy whose supervisor is a fake, under virtual time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from trio_supervisor.application.worker_policy import HOOKS, PolicyName
from trio_supervisor.controller.policy_questions import PolicyQuestions
from trio_supervisor.errors import ConnectionLostError
from trio_supervisor.tasks import open_nursery
from trio_supervisor.testing import in_virtual_time

CHILD = SimpleNamespace(
    name="web.0",
    service="web",
    process_id=None,
    last_process_id=7,
    incarnation=2,
    crashes=1,
)


class FakeLink:
    """A supervisor that can be called after *later* [s], and takes *takes* [s]."""

    def __init__(
        self, decision: str = "leave", later: float = 0, takes: float = 0
    ) -> None:
        self.decision, self.later, self.takes = decision, later, takes
        self.asked: list[tuple[float, str]] = []
        self.is_lost = False

    async def wait_connected(self) -> None:
        await trio.sleep_until(self.later)

    async def ask(self, do: str, arguments: dict[str, Any]) -> dict[str, Any]:
        assert do == "decide"
        assert arguments["worker"]["process_id"] == 7
        if self.is_lost:
            raise ConnectionLostError("the connection was lost")
        await trio.sleep(self.takes)
        self.asked.append((trio.current_time(), arguments["hook"]))
        return {"decision": self.decision}


def questions(link: FakeLink, nursery: Any = None) -> PolicyQuestions:
    application = SimpleNamespace(policy=PolicyName("own:Policy", tuple(HOOKS)))
    owner = SimpleNamespace(link=link, application=application, nursery=nursery)
    return PolicyQuestions(cast(Any, owner))


async def ask(link: FakeLink) -> str:
    return await questions(link).ask("worker_exited", cast(Any, CHILD))


@in_virtual_time
async def test_a_decision_is_waited_for_two_seconds() -> None:
    assert await ask(FakeLink(later=1, takes=0.5)) == "leave"
    assert await ask(FakeLink(takes=5)) == ""
    assert trio.current_time() == 3.5


@in_virtual_time
async def test_what_cannot_be_asked_decides_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    link = FakeLink()
    link.is_lost = True
    assert await ask(link) == ""
    assert await ask(FakeLink("explode")) == ""
    assert "web.0: the policy cannot be asked: the connection was lost" in caplog.text


@in_virtual_time
async def test_a_start_is_told_when_there_is_a_supervisor() -> None:
    link, late = FakeLink(later=20), FakeLink(later=100)
    async with open_nursery() as nursery:
        questions(link, nursery).tell_started(cast(Any, CHILD))
        questions(late, nursery).tell_started(cast(Any, CHILD))
    assert link.asked == [(20, "worker_started")]
    assert late.asked == []
