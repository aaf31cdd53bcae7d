"""Test facts: equal for equal declarations, and readable where they differ."""

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
    Probe,
    Service,
    Timetable,
    facts_of,
)
from trio_supervisor.application.facts import application_facts
from trio_supervisor.policy.metrics import Gauge, Metrics
from trio_supervisor.policy.reload import plan_reload
from trio_supervisor.policy.restart import Backoff


async def target(worker: object) -> None:
    """A target."""


class Callable:
    """A callable object without a name."""

    async def __call__(self, worker: object) -> None: ...


def web(**changes: Any) -> Service:
    defaults: dict[str, Any] = {"name": "web", "target": target}
    return Service(**(defaults | changes))


def redis(**changes: Any) -> Command:
    # With a default that depends on other fields, each of these would change two.
    defaults: dict[str, Any] = {
        "name": "redis",
        "arguments": ["redis-server"],
        "stable_for": 0.0,
    }
    return Command(**(defaults | changes))


CHANGES: dict[str, tuple[Any, str]] = {
    "target": (print, f"target {__name__}:target -> builtins:print"),
    "arguments": (["redis-server", "a b"], "redis-server -> redis-server 'a b'"),
    "backend": ("asyncio", "backend trio -> asyncio"),
    "notify": (True, "notify False -> True"),
    "restart": ("never", "restart always -> never"),
    "backoff": (Backoff(cap=9), "cap=9"),
    "intensity": (10, "intensity None -> 10"),
    "period": (5, "period 60.0 -> 5.0"),
    "success_exit_codes": ([0, 3], "success_exit_codes 0 -> 0 3"),
    "give_up_on": ([78, "SEGV"], "give_up_on  -> -11 78"),
    "startup": (Probe.tcp("a:1"), "startup None -> Probe("),
    "readiness": (Probe.tcp("a:1"), "readiness None -> Probe("),
    "liveness": (Probe.tcp("a:1"), "liveness None -> Probe("),
    "startup_timeout": (5, "startup_timeout 60.0 -> 5.0"),
    "health_check_timeout": (5, "-> 5.0"),
    "max_lifetime": (5, "max_lifetime None -> 5.0"),
    "stable_for": (5, "stable_for 0.0 -> 5.0"),
    "stop_signal": (signal.SIGINT, "stop_signal SIGTERM -> SIGINT"),
    "stop_timeout": (5, "stop_timeout 10.0 -> 5.0"),
    "kill_mode": ("leader", "kill_mode group -> leader"),
    "pre_stop": (["true"], "pre_stop None -> true"),
    "depends_on": ({"a": "ready"}, "depends_on['a'] (unset) -> ready"),
    "significant": (True, "significant False -> True"),
    "expand": (True, "expand False -> True"),
    "sockets": (
        {"a": Listen("tcp://:0")},
        "sockets['a'] (unset) -> tcp://*:0 backlog=1024",
    ),
    "forward_signals": (["USR2"], "forward_signals  -> SIGUSR2"),
    "may": (["status", "restart"], "may  -> status restart"),
    "state": ({"a": 1}, "state['a'] (unset) -> (hidden)"),
    "environment": ({"A": "1"}, "environment['A'] (unset) -> (hidden)"),
    "nice": (5, "nice None -> 5"),
    "schedule": (
        Timetable(every=5, jitter=1),
        "schedule None -> every 5 s, skip, jitter=1",
    ),
    "autostart": (False, "autostart True -> False"),
    "on_demand": (True, "on_demand False -> True"),
    "idle_timeout": (60, "idle_timeout None -> 60.0"),
    "stdin": ("in.txt", "stdin None -> in.txt"),
    "tty": (True, "tty False -> True"),
    "user": ("www-data", "user None -> www-data"),
    "group": (33, "group None -> 33"),
    "supplementary_groups": (["a", 7], "supplementary_groups None -> a 7"),
    "umask": ("027", "umask None -> 0o027"),
    "ionice": ("idle", "ionice None -> idle"),
    "cpu_affinity": ([0, 1], "cpu_affinity None -> 0 1"),
    "oom_score_adj": (5, "oom_score_adj None -> 5"),
    "limits": ({"core": [0, 5]}, "limits['core'] (unset) -> (0, 5)"),
    "memory_max": ("1 MiB", "memory_max None -> 1048576"),
    "memory_high": (1000, "memory_high None -> 1000"),
    "cpu_max": (1.5, "cpu_max None -> 1.5"),
    "pids_max": (7, "pids_max None -> 7"),
    "private_tmp": (True, "private_tmp False -> True"),
    "no_new_privileges": (True, "no_new_privileges False -> True"),
    "directory": ("/tmp", "directory None -> /tmp"),
    "log_file": ("a.log", "log_file None -> a.log"),
    "stderr_log_file": ("a.log", "stderr_log_file None -> a.log"),
    "log_to": ("syslog", "log_to None -> syslog"),
    "log_max_size": ("10 MiB", "log_max_size None -> 10485760"),
    "log_max_age": (86400, "log_max_age None -> 86400.0"),
    "log_keep": (5, "log_keep 10 -> 5"),
    "log_compress": (False, "log_compress True -> False"),
    "log_timestamps": (True, "log_timestamps False -> True"),
    "start_method": ("exec", "start_method fork_server -> exec"),
    "switch_interval": (None, "switch_interval 0.0001 -> None"),
    "metrics": (
        Metrics(n=Gauge()),
        "metrics None -> Metrics(n=Gauge(help='', labels={}))",
    ),
    "prometheus_client": (True, "prometheus_client False -> True"),
}


@pytest.mark.parametrize("make", [web, redis])
def test_changed_option_is_one_change_in_words(make: Any) -> None:
    kind = type(make())
    for field in inspect.signature(kind).parameters:
        if field in {"name", "count", "overlap"}:
            continue
        value, words = CHANGES[field]
        more: dict[str, Any] = (
            {"notify": True} if field == "health_check_timeout" else {}
        )
        more = more if kind is Command else {}
        if field in {"log_max_size", "log_max_age", "log_timestamps"}:
            more = {"log_file": "a.log"}
        if field in {"on_demand", "idle_timeout"}:
            more = {"sockets": {"http": Listen("tcp://127.0.0.1:80")}}
            more |= {"on_demand": True} if field == "idle_timeout" else {}
        old, new = make(**more), make(**more, **{field: value})
        (service,) = plan_reload([facts_of(old)], [facts_of(new)]).services
        (change,) = service.changes
        assert words in str(change)


def test_every_option_has_a_row_in_changes() -> None:
    """Add a line to CHANGES for a new option."""
    fields = {
        field
        for kind in (Service, Command)
        for field in inspect.signature(kind).parameters
    }
    assert fields - {"name", "count", "overlap"} == set(CHANGES)


def test_facts_of_equal_declarations_are_equal() -> None:
    """Also if the objects have different addresses in memory."""
    for make in (web, redis):
        assert facts_of(make(), "abc") == facts_of(make(), "abc")
    first, second = web(target=Callable()), web(target=Callable())
    assert facts_of(first) == facts_of(second)


def test_facts_keep_count_and_overlap_apart() -> None:
    """They are not part of what a process is started with."""
    facts = facts_of(redis(count=7, overlap=True), "abc")
    assert (facts.name, facts.count, facts.fingerprint) == ("redis", 7, "abc")
    assert (facts.overlap, facts.is_command) == (True, True)
    assert not {"name", "count"} & facts.declaration.keys()
    assert not facts_of(web()).is_command


def test_facts_survive_json() -> None:
    """They are sent from the process that loads the application."""
    facts = facts_of(
        web(state={"a": [1, {"b": None}]}, sockets={"a": Listen("tcp://:0")})
    )
    assert json.loads(json.dumps(facts.declaration)) == facts.declaration


def test_application_facts_include_groups_and_limits() -> None:
    inner = Group([web()], name="inner", strategy="rest_for_one", intensity=None)
    application = Application([redis(), inner], name="shop", intensity=3)

    assert application_facts(application) == {
        "name": "shop",
        "auto_shutdown": "any",
        "max_restarts_concurrently": None,
        "stop_timeout": None,
        "immortal_preload": False,
        "policy": None,
        "on_event": [],
        "groups": {
            "shop": "one_for_one, 3 within 60 s",
            "shop/inner": "rest_for_one, any within 60 s: web",
        },
    }


def test_facts_of_a_socket_show_all_of_its_options() -> None:
    def shown(listen: Listen) -> object:
        return facts_of(web(sockets={"a": listen})).declaration["sockets"]

    assert shown(Listen("tcp://:80", reuse_port=True)) == {
        "a": "tcp://*:80 backlog=1024 reuse_port"
    }
    assert shown(Listen("unix://a", mode=0o666)) == {
        "a": "unix://a backlog=1024 mode=0o666"
    }
