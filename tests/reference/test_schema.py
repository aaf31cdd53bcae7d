"""The JSON schema accepts what an application writes of itself, and little else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trio_supervisor.application import (
    Application,
    Command,
    Group,
    Listen,
    Probe,
    Service,
    application_to_plain,
)
from trio_supervisor.policy.restart import Backoff
from trio_supervisor.reference.schema import page

jsonschema: Any = pytest.importorskip("jsonschema")


async def work(worker: object) -> None:
    """Be a target."""


SMALL = Application([Service("web", work), Command("db", ["db"])])
LARGE = Application(
    [
        Group(
            [
                Command(
                    "db",
                    ["db", "--port", "1"],
                    count=0,
                    notify=True,
                    backoff=None,
                    give_up_on=[3, "SIGTERM"],
                    health_check_timeout=3,
                    startup=Probe.http("http://localhost:80/ready?x=1", interval=0.5),
                    readiness=Probe.tcp("[::1]:80", failures=9, answered_by="anyone"),
                    liveness=Probe.command(["check", "it"], delay=3.0),
                ),
                Group(
                    [
                        Service(
                            "web",
                            work,
                            backend="asyncio",
                            backoff=Backoff(base=1, cap=2),
                            restart="on-failure",
                            stop_signal="SIGINT",
                            depends_on={"db": "started"},
                            forward_signals=["USR2"],
                            may=["status"],
                            sockets={
                                "http": Listen("tcp://:80", reuse_port=True),
                                "admin": Listen("unix:///x", mode=0o660, user=0),
                            },
                            state={"nested": [1, None, {"a": 2.5}]},
                            environment={"A": "b"},
                            pre_stop=["true"],
                            switch_interval=None,
                        )
                    ],
                    name="inner",
                ),
            ],
            strategy="rest_for_one",
            intensity=3,
        )
    ],
    auto_shutdown="all",
    max_restarts_concurrently=2,
    stop_timeout=30,
)


def problems(plain: object) -> list[str]:
    schema = json.loads(page())
    validator = jsonschema.Draft202012Validator(schema)
    return [error.message for error in validator.iter_errors(plain)]


def test_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(page()))


@pytest.mark.parametrize("application", [SMALL, LARGE], ids=["small", "large"])
def test_plain_form_of_an_application_is_valid(application: Application) -> None:
    plain = json.loads(json.dumps(application_to_plain(application)))
    assert problems(plain) == []


def test_required_options_are_enough() -> None:
    command = {"kind": "command", "name": "db", "arguments": ["db"]}
    service = {"kind": "service", "name": "web", "target": "app:main"}
    group = {"kind": "group", "children": [command]}
    assert problems({"services": [command, service, group]}) == []


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"count": "3"}, id="string for a number"),
        pytest.param({"count": -1}, id="number below its limit"),
        pytest.param({"stop_timeout": None}, id="null where none is allowed"),
        pytest.param({"restart": "sometimes"}, id="word that is no choice"),
        pytest.param({"may": ["everything"]}, id="item that is no choice"),
        pytest.param({"depends_on": {"a": "healthy"}}, id="value that is no choice"),
        pytest.param({"timeout": 3}, id="unknown option"),
        pytest.param({"target": "app:main"}, id="option of a service"),
        pytest.param({"sockets": {"a": "tcp://:80"}}, id="string for an object"),
        pytest.param({"liveness": {"kind": "tcp"}}, id="probe without address"),
        pytest.param({"backoff": {"base": "1"}}, id="backoff with a string"),
        pytest.param({"kind": "daemon"}, id="unknown kind"),
    ],
)
def test_mistake_is_rejected(changes: dict[str, Any]) -> None:
    command = {"kind": "command", "name": "db", "arguments": ["db"]}
    assert problems({"services": [command]}) == []
    assert problems({"services": [command | changes]})
