"""Declaring a policy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trio_supervisor import Application, Policy, PolicyWorker, SpecError, WorkerExit
from trio_supervisor.application import application_from_plain, application_to_plain
from trio_supervisor.application.facts import application_facts
from trio_supervisor.application.worker_policy import (
    HOOKS,
    PolicyName,
    hooks_of,
    policy_name,
)


class Patient(Policy):
    """Overrides two methods."""

    async def worker_exited(self, worker: PolicyWorker, ending: WorkerExit) -> None:
        """Decide nothing."""

    async def startup_failed(self, worker: PolicyWorker, problem: str) -> Any:
        """Wait."""
        return "keep"


def test_methods_that_are_overridden_are_known() -> None:
    assert hooks_of(None) == ()
    assert hooks_of(Policy()) == ()
    assert hooks_of(Patient()) == ("worker_exited", "startup_failed")
    assert set(HOOKS) == {name for name in vars(Policy) if not name.startswith("_")}


@pytest.mark.parametrize("hook", HOOKS)
async def test_each_method_decides_nothing_by_itself(hook: str) -> None:
    worker = PolicyWorker(
        name="web.0", service="web", process_id=1, incarnation=1, crashes=0
    )
    arguments = [] if hook == "worker_started" else ["?"]
    assert await getattr(Policy(), hook)(worker, *arguments) is None


def test_the_controller_gets_its_name_and_methods() -> None:
    plain = application_to_plain(Application([], policy=Patient()))
    again = application_from_plain(json.loads(json.dumps(plain)))
    name = f"{__name__}:Patient"
    hooks = ("worker_exited", "startup_failed")
    assert again.policy == PolicyName(name, hooks)
    assert policy_name(Patient()) == again.policy
    assert hooks_of(again.policy) == hooks
    assert application_facts(again)["policy"] == name
    assert application_from_plain(application_to_plain(Application([]))).policy is None


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (Patient, "policy: expected an object of a Policy class, got the class itself"),
        (5, "policy: expected an object of a Policy class, got 5"),
    ],
)
def test_anything_else_is_refused(value: Any, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        Application([], policy=value)
    assert str(caught.value) == problem


def test_unknown_methods_are_refused() -> None:
    plain = application_to_plain(Application([], policy=Patient()))
    plain["policy"]["hooks"] = ["worker_sneezed"]
    with pytest.raises(SpecError, match="unknown: 'worker_sneezed'"):
        application_from_plain(plain)
