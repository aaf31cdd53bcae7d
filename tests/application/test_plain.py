"""Test the round trip of an application through plain data."""

from __future__ import annotations

import inspect
import json
import signal
from typing import Any

import pytest

from trio_supervisor.application import (
    Application,
    Command,
    Group,
    Listen,
    MonitorName,
    Probe,
    Service,
    TargetName,
    application_from_plain,
    application_to_plain,
    facts_of,
)
from trio_supervisor.application.facts import application_facts
from trio_supervisor.application.plain import child_to_plain
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.restart import Backoff


async def work(worker: object) -> None:
    """Be a target."""


class Own:
    """A monitor."""

    interval = 1.0

    def register(self, worker: object) -> None:
        """Do nothing."""

    def remove(self, worker: object) -> None:
        """Do nothing."""

    async def run_once(self) -> None:
        """Do nothing."""

    def status(self) -> dict[str, object]:
        """Return nothing."""
        return {}


SERVICE = Service(
    "web",
    work,
    count=3,
    restart="on-failure",
    backoff=Backoff(base=1.5, cap=7.0),
    intensity=None,
    period=9.5,
    success_exit_codes=[0, 7],
    give_up_on=[3, "SIGTERM"],
    stop_signal="SIGINT",
    kill_mode="leader",
    pre_stop=["true", "-x"],
    depends_on={"db": "started"},
    sockets={
        "http": Listen("tcp://[::1]:8080", backlog=7, reuse_port=True),
        "admin": Listen("unix:///run/x.sock", mode=0o660),
    },
    forward_signals=["SIGUSR2"],
    state={"nested": {"list": [1, 2.5, None, True]}, "kind": "service"},
    environment={"A": "b", "BYTES": "\udcff"},
    directory="/srv",
    log_file="web.log",
    backend="asyncio",
    start_method="exec",
    switch_interval=None,
)
COMMAND = Command(
    "db",
    ["db", "--port", "1"],
    notify=True,
    backoff=None,
    health_check_timeout=3,
    startup=Probe.http("http://localhost:80/ready?x=1", interval=0.5),
    readiness=Probe.tcp("[::1]:80", failures=9),
    liveness=Probe.command(["check", "it"], delay=3.0),
)
APPLICATION = Application(
    [
        Group(
            [COMMAND, Group([SERVICE], name="inner")], strategy="rest_for_one", period=5
        ),
        Command("other", ["other"]),
    ],
    strategy="one_for_all",
    intensity=4,
    period=12.0,
    auto_shutdown="all",
    max_restarts_concurrently=2,
    monitors=[Own()],
    name="shop",
)


def travel(application: Application) -> Application:
    """Return *application* after a round trip through JSON."""
    return application_from_plain(
        json.loads(json.dumps(application_to_plain(application)))
    )


def test_application_is_unchanged_by_a_round_trip() -> None:
    there = travel(APPLICATION)
    assert application_to_plain(there) == application_to_plain(APPLICATION)
    assert application_facts(there) == application_facts(APPLICATION)
    for before, after in zip(APPLICATION.services, there.services, strict=True):
        assert type(before) is type(after)
        assert facts_of(before) == facts_of(after)
        mine, theirs = vars(before).copy(), vars(after).copy()
        assert mine.pop("target", None) is None or mine != theirs
        theirs.pop("target", None)
        assert mine == theirs
    assert [str(monitor) for monitor in there.monitors] == [f"{__name__}:Own"]


def test_targets_and_monitors_become_names() -> None:
    there = travel(APPLICATION)
    web = there.service("web")
    assert isinstance(web, Service)
    assert isinstance(web.target, TargetName)
    with pytest.raises(TypeError, match="work is only a name"):
        web.target(None)
    (monitor,) = there.monitors
    assert isinstance(monitor, MonitorName)
    with pytest.raises(TypeError, match="Own is only a name"):
        monitor.status()


@pytest.mark.parametrize("item", [SERVICE, COMMAND, Group([SERVICE])])
def test_plain_form_has_every_option(item: Service | Command | Group) -> None:
    """Fails for a new option that has no plain form."""
    plain = child_to_plain(item)
    assert plain.keys() - {"kind"} == set(inspect.signature(type(item)).parameters)


def test_plain_form_of_an_application_has_every_option() -> None:
    plain = application_to_plain(APPLICATION)
    assert plain.keys() == set(inspect.signature(Application).parameters)


def test_signals_in_give_up_on_survive_a_round_trip() -> None:
    there = travel(Application([SERVICE, COMMAND])).service("web")
    assert there.give_up_on == {3, -signal.SIGTERM}


class Evil:
    """A target whose repr fails."""

    def __call__(self, worker: object) -> None:
        """Do nothing."""

    def __repr__(self) -> str:
        raise LookupError


def test_target_without_repr_is_named_by_its_type() -> None:
    (service,) = travel(Application([Service("web", Evil(), backend="sync")])).services
    assert isinstance(service, Service)
    assert "Evil" in str(service.target)


def change(**fields: Any) -> dict[str, Any]:
    plain = json.loads(json.dumps(application_to_plain(APPLICATION)))
    plain["services"][1].update(fields)
    return dict(plain)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        pytest.param(7, "application: expected a dictionary", id="no object"),
        pytest.param({}, "services: expected a list", id="empty"),
        pytest.param({"services": [7]}, r"services\[0\]: expected a dict", id="child"),
        pytest.param(
            {"services": [], "extra": 1}, "unknown field 'extra'", id="unknown field"
        ),
        pytest.param(change(kind="group"), r"\[1\].children: expected a", id="group"),
        pytest.param(change(kind="class"), r"\[1\].kind: expected one of", id="kind"),
        pytest.param(change(kind=[]), r"\[1\].kind: expected one of", id="kind list"),
        pytest.param(change(count="3"), r"\[1\].count: expected a whole", id="count"),
        pytest.param(change(count=10**9), r"\[1\].count: expected", id="many"),
        pytest.param(change(arguments="sh"), r"\[1\].arguments: expected", id="text"),
        pytest.param(change(name="../x"), r"\[1\].name: expected up to", id="name"),
        pytest.param(change(backoff={"base": "1"}), r"\[1\].backoff: ", id="backoff"),
        pytest.param(change(sockets={"a": 7}), r"sockets\['a'\]: exp", id="socket"),
        pytest.param(change(startup={"kind": "_"}), "startup.kind: ", id="probe"),
        pytest.param(change(target="x"), "unknown field 'target'", id="foreign field"),
        pytest.param(change(__class__="x"), "unknown field '__class__'", id="dunder"),
        pytest.param(
            change(kind="service", target=None),
            r"\[1\].target: expected a name",
            id="target",
        ),
    ],
)
def test_invalid_plain_form_is_rejected_with_its_path(
    value: object, complaint: str
) -> None:
    with pytest.raises(SpecError, match=complaint):
        application_from_plain(value)


def test_too_deeply_nested_groups_are_rejected() -> None:
    plain: dict[str, Any] = {"kind": "group", "children": []}
    for _ in range(400):
        plain = {"kind": "group", "children": [plain]}
    with pytest.raises(SpecError, match="deeper"):
        application_from_plain({"services": [plain]})
