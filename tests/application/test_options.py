"""Test that mistakes in a declaration raise SpecError and name the option."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_supervisor.application import (
    MAX_COUNT,
    RESERVED_NAMES,
    Application,
    Command,
    Group,
    Listen,
    Probe,
    Service,
)
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.restart import Backoff, RestartPolicy, RestartRules
from trio_supervisor.wire.json_line import decode_object, encode_object
from trio_supervisor.wire.limits import DEFAULT_LIMITS


async def target(worker: object) -> None:
    """What a service runs."""


class GoodMonitor:
    interval = 1.0

    def register(self, worker: object) -> None: ...
    def remove(self, worker: object) -> None: ...
    async def run_once(self) -> None: ...
    def status(self) -> Mapping[str, object]:
        return {}


Make = Callable[..., Any]


def service(**changes: Any) -> Service:
    defaults: dict[str, Any] = {"name": "web", "target": target}
    return Service(**(defaults | changes))


def command(**changes: Any) -> Command:
    return Command(**({"name": "redis", "arguments": ["redis-server"]} | changes))


def application(**changes: Any) -> Application:
    return Application(**({"services": [service(), command()]} | changes))


LISTEN: Final = Listen("tcp://127.0.0.1:8000")


def group(**changes: Any) -> Group:
    return Group(**({"children": [service(), command()]} | changes))


both = pytest.mark.parametrize("make", [service, command])
endless: list[object] = []
endless.append(endless)
HUGE: Final = 10**5000  # too many digits for str()
LONE: Final = "\ud800"  # what no system call takes


def refuse(make: Make, field: str, value: object) -> SpecError:
    """Return the error that *value* for *field* causes."""
    with pytest.raises(SpecError) as caught:
        make(**{field: value})
    return caught.value


def test_missing_option_has_its_documented_default() -> None:
    web = service()
    assert (web.count, web.backend, web.switch_interval) == (1, "trio", 1e-4)
    assert web.rules == RestartRules(policy=RestartPolicy.ALWAYS)
    assert (web.startup_timeout, web.health_check_timeout) == (60.0, 30.0)
    assert (web.stop_signal, web.stop_timeout) == (signal.SIGTERM, 10.0)
    assert (web.state, web.environment, web.directory) == ({}, {}, None)
    redis = command()
    assert redis.arguments == ("redis-server",)
    assert (redis.notify, redis.health_check_timeout) == (False, None)
    made = application()
    assert (made.name, made.auto_shutdown) == ("application", "any")
    assert made.max_restarts_concurrently is None
    assert made.stop_timeout is None
    assert made.root.strategy == "one_for_one"
    assert (made.root.intensity, made.root.period) == (None, 60.0)
    group = Group([])
    assert (group.strategy, group.intensity, group.period) == (
        "one_for_one",
        None,
        60.0,
    )
    assert group.name is None


@both
def test_missing_shared_option_has_its_documented_default(make: Make) -> None:
    made = make()
    assert (made.success_exit_codes, made.give_up_on) == ({0}, set())
    assert (made.depends_on, made.sockets, made.forward_signals) == ({}, {}, ())
    assert (made.kill_mode, made.pre_stop, made.max_lifetime) == ("group", None, None)
    assert (made.significant, made.log_file) == (False, None)


def test_overlap_defaults_to_true_only_for_a_service() -> None:
    """By default a reload starts new workers before it stops the old ones."""
    assert service().overlap
    assert not command().overlap


@both
@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("name", "a-B_9", "a-B_9"),
        ("name", "x" * 64, "x" * 64),
        ("count", 0, 0),
        ("count", MAX_COUNT, MAX_COUNT),
        ("startup_timeout", None, None),
        ("startup_timeout", 1, 1.0),
        ("stop_timeout", 0, 0.0),
        ("stop_signal", "INT", signal.SIGINT),
        ("stop_signal", "SIGQUIT", signal.SIGQUIT),
        ("stop_signal", signal.SIGKILL, signal.SIGKILL),
        ("environment", {"A": "", "B_1": "caf\udce9"}, {"A": "", "B_1": "caf\udce9"}),
        ("environment", None, {}),
        ("nice", -20, -20),
        ("nice", 19, 19),
        ("stdin", "in.txt", "in.txt"),
        ("user", "www-data", "www-data"),
        ("group", 33, 33),
        ("supplementary_groups", ["audio", 0], ("audio", 0)),
        ("supplementary_groups", [], ()),
        ("umask", 0o027, 0o027),
        ("umask", "027", 0o027),
        ("umask", "0o77", 0o077),
        ("ionice", "idle", "idle"),
        ("ionice", "best-effort:7", "best-effort:7"),
        ("cpu_affinity", [3, 0, 3], (0, 3)),
        ("oom_score_adj", -1000, -1000),
        ("limits", None, {}),
        ("limits", {"nofile": 9}, {"nofile": (9, 9)}),
        ("limits", {"core": "unlimited"}, {"core": ("unlimited", "unlimited")}),
        ("limits", {"as": [1, "unlimited"]}, {"as": (1, "unlimited")}),
        ("no_new_privileges", True, True),
        ("private_tmp", True, True),
        ("directory", "/tmp", "/tmp"),
        ("log_file", "log/web.log", "log/web.log"),
        ("success_exit_codes", [0, 255, 0], {0, 255}),
        ("success_exit_codes", range(3), {0, 1, 2}),
        ("success_exit_codes", [], set()),
        ("give_up_on", [78, "SEGV", "SIGABRT", signal.SIGILL], {78, -11, -6, -4}),
        ("depends_on", {"b": "ready", "c": "started"}, {"b": "ready", "c": "started"}),
        ("depends_on", None, {}),
        ("significant", True, True),
        ("overlap", True, True),
        ("overlap", False, False),
        ("sockets", {"a-B_9": LISTEN}, {"a-B_9": LISTEN}),
        ("kill_mode", "leader", "leader"),
        ("pre_stop", ["curl", "-f", "x"], ("curl", "-f", "x")),
        ("max_lifetime", 3600, 3600.0),
        ("max_lifetime", 0.1, 0.1),
        (
            "forward_signals",
            ["USR2", signal.SIGWINCH, "SIGUSR2"],
            (signal.SIGUSR2, signal.SIGWINCH),
        ),
        ("forward_signals", ["QUIT", "TTIN", "TTOU"], (3, 21, 22)),
    ],
)
def test_valid_value_is_kept(
    make: Make, field: str, value: object, kept: object
) -> None:
    assert getattr(make(**{field: value}), field) == kept


@both
def test_rules_combine_the_options_about_restarts(make: Make) -> None:
    made = make(restart="on-failure", backoff=None, intensity=None, period=5)
    assert made.rules == RestartRules(
        policy=RestartPolicy.ON_FAILURE, backoff=None, intensity=None, period=5.0
    )
    backoff = Backoff(base=1)
    assert make(backoff=backoff, intensity=3).rules.backoff == backoff
    assert make(intensity=3).rules.intensity == 3


@both
@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "", "64 letters"),
        ("name", "web.0", "64 letters"),
        ("name", "-web", "64 letters"),
        ("name", "web\n", "64 letters"),
        ("name", "ü", "64 letters"),
        ("name", 65 * "x", "64 letters"),
        ("name", 7, "got 7"),
        ("name", None, "got None"),
        *(("name", name, "is reserved") for name in sorted(RESERVED_NAMES)),
        ("count", -1, "expected 0 or more"),
        ("count", MAX_COUNT + 1, "10000 or less"),
        pytest.param("count", HUGE, "10000 or less", id="too many digits"),
        pytest.param("count", -HUGE, "expected 0 or more", id="too many, negative"),
        ("count", 1.0, "whole number"),
        ("count", "2", "whole number"),
        ("count", True, "whole number"),
        ("count", None, "whole number"),
        ("restart", "sometimes", "'always', 'on-failure', 'never'"),
        ("restart", True, "'always'"),
        ("restart", None, "'always'"),
        ("restart", [], "'always'"),
        ("backoff", 1.0, "a Backoff or None"),
        ("backoff", Backoff, "a Backoff or None"),
        ("intensity", -1, "expected 0 or more"),
        ("intensity", 2.5, "whole number"),
        ("intensity", False, "whole number"),
        ("period", 0, "expected 0.001"),
        ("period", None, "number of seconds"),
        ("startup_timeout", 0, "expected 1e-06"),
        ("startup_timeout", -1, "expected 1e-06"),
        ("startup_timeout", float("nan"), "got nan"),
        ("startup_timeout", float("inf"), "got inf"),
        pytest.param("startup_timeout", HUGE, "expected 1e-06", id="too many seconds"),
        ("startup_timeout", "60", "number of seconds"),
        ("startup_timeout", True, "number of seconds"),
        ("stop_timeout", -0.1, "expected 0"),
        ("stop_timeout", None, "number of seconds"),
        ("stop_timeout", 1e9, "31622400"),
        ("stop_signal", "SIGWRONG", "such as 'SIGTERM'"),
        ("stop_signal", "term", "such as 'SIGTERM'"),
        ("stop_signal", 15, "such as 'SIGTERM'"),
        ("stop_signal", None, "such as 'SIGTERM'"),
        ("stop_signal", "STOP", "SIGSTOP does not end a process"),
        ("stop_signal", signal.SIGCONT, "SIGCONT does not end a process"),
        ("stop_signal", signal.SIGCHLD, "SIGCHLD does not end a process"),
        ("environment", [("A", "b")], "a dictionary"),
        ("environment", 0, "a dictionary"),
        ("environment", "", "a dictionary"),
        ("environment", {"": "x"}, "name of an environment variable"),
        ("environment", {"A=B": "x"}, "name of an environment variable"),
        ("environment", {"A\0": "x"}, "name of an environment variable"),
        ("environment", {LONE: "x"}, "name of an environment variable"),
        ("environment", {1: "x"}, "name of an environment variable"),
        ("nice", -21, "expected -20 or more"),
        ("nice", 20, "expected 19 or less"),
        ("nice", "high", "whole number"),
        ("stdin", 0, "a path as a string"),
        ("user", "", "a name or a number"),
        ("user", -1, "0 or more"),
        ("user", 2**32 - 1, "4294967294 or less"),
        ("group", True, "a name or a number"),
        ("group", b"x", "a name or a number"),
        ("supplementary_groups", "audio", "a list"),
        ("umask", 0o1000, "expected 0 to 0o777"),
        ("umask", -1, "expected 0 to 0o777"),
        ("umask", "8", "octal digits"),
        ("umask", True, "octal digits"),
        ("ionice", "idle:3", "'best-effort:6'"),
        ("ionice", "realtime:8", "'best-effort:6'"),
        ("ionice", 3, "'best-effort:6'"),
        ("cpu_affinity", [], "at least one CPU"),
        ("cpu_affinity", 0, "a list"),
        ("cpu_affinity", "0-3", "a list"),
        ("oom_score_adj", 1001, "1000 or less"),
        ("oom_score_adj", -1001, "-1000 or more"),
        ("limits", ["nofile"], "a dictionary"),
        ("limits", {"nofiles": 1}, "did you mean 'nofile'?"),
        ("limits", {"nofiles": 1}, "expected one of as, core, cpu"),
        ("limits", {7: 1}, "unknown resource 7"),
        ("no_new_privileges", 1, "True or False"),
        ("private_tmp", "/tmp", "True or False"),
        ("directory", 7, "a path as a string"),
        ("directory", b"/tmp", "a path as a string"),
        ("directory", "a\0b", "a path as a string"),
        ("directory", LONE, "a path as a string"),
        ("log_file", 7, "a path as a string"),
        ("log_file", "a\0b", "a path as a string"),
        ("success_exit_codes", 0, "a list"),
        ("success_exit_codes", b"\0", "a list"),
        ("give_up_on", "SEGV", "a list"),
        ("give_up_on", None, "a list"),
        ("depends_on", ["redis"], "a dictionary"),
        ("depends_on", {1: "ready"}, "name of a service"),
        ("significant", 1, "True or False"),
        ("overlap", None, "True or False"),
        ("sockets", [LISTEN], "a dictionary"),
        ("sockets", {"a:b": LISTEN}, "names of up to 64 letters"),
        ("sockets", {"": LISTEN}, "names of up to 64 letters"),
        ("sockets", {65 * "x": LISTEN}, "names of up to 64 letters"),
        ("sockets", {f"s{n}": LISTEN for n in range(33)}, "32 at most, got 33"),
        ("kill_mode", "process", "'group', 'leader'"),
        ("pre_stop", "curl x", "the program and its arguments"),
        ("pre_stop", [], "the program and its arguments"),
        ("max_lifetime", 0, "expected 0.1"),
        ("forward_signals", "USR2", "a list"),
    ],
)
def test_invalid_shared_option_is_named(
    make: Make, field: str, value: object, words: str
) -> None:
    error = refuse(make, field, value)
    assert error.field == field
    assert str(error).startswith(f"{field}: ")
    assert words in error.problem


@both
@pytest.mark.parametrize(
    "seed", ["", "random", "0", "4294967295", "00000000000000000007", "{index}"]
)
def test_hash_seed_that_an_interpreter_takes_is_kept(make: Make, seed: str) -> None:
    variables = {"PYTHONHASHSEED": seed}
    assert make(environment=variables).environment == variables


@both
@pytest.mark.parametrize("seed", ["abc", "-1", "4294967296", "9" * 5000, "\u0663"])
def test_hash_seed_that_no_interpreter_takes_is_refused(make: Make, seed: str) -> None:
    error = refuse(make, "environment", {"PYTHONHASHSEED": seed})
    assert error.field == "environment['PYTHONHASHSEED']"
    assert error.problem == "expected 'random' or a number from 0 to 4294967295"


@both
@pytest.mark.parametrize("value", [1, None, "a\0b", b"x", LONE])
def test_invalid_environment_variable_is_named_by_its_key(
    make: Make, value: object
) -> None:
    assert refuse(make, "environment", {"A": value}).field == "environment['A']"


@both
@pytest.mark.parametrize(
    ("field", "value", "where", "words"),
    [
        ("success_exit_codes", [0, 256], "success_exit_codes[1]", "255 or less"),
        ("success_exit_codes", [-9], "success_exit_codes[0]", "0 or more"),
        ("success_exit_codes", [True], "success_exit_codes[0]", "whole number"),
        ("give_up_on", [1, -11], "give_up_on[1]", "0 or more"),
        ("give_up_on", [None], "give_up_on[0]", "whole number"),
        ("give_up_on", ["SIGWRONG"], "give_up_on[0]", "such as 'SIGTERM'"),
        ("give_up_on", ["SIGSTOP"], "give_up_on[0]", "does not end a process"),
        ("depends_on", {"b": "healthy"}, "depends_on['b']", "'started', 'ready'"),
        ("depends_on", {"b": None}, "depends_on['b']", "'exited_ok'"),
        ("sockets", {"a": "tcp://:80"}, "sockets['a']", "expected a Listen"),
        ("pre_stop", ["curl", 1], "pre_stop[1]", "a string"),
        ("supplementary_groups", [0, None], "supplementary_groups[1]", "a name"),
        ("cpu_affinity", [0, -1], "cpu_affinity[1]", "0 or more"),
        ("cpu_affinity", [True], "cpu_affinity[0]", "whole number"),
        ("limits", {"core": "none"}, "limits['core']", "or 'unlimited'"),
        ("limits", {"core": -1}, "limits['core']", "0 or more"),
        ("limits", {"core": 2**64}, "limits['core']", "or less"),
        ("limits", {"core": None}, "limits['core']", "or 'unlimited'"),
        ("limits", {"core": [1]}, "limits['core']", "(soft, hard)"),
        ("limits", {"core": [1, None]}, "limits['core'][1]", "whole number"),
        ("limits", {"core": [2, 1]}, "limits['core']", "2 is greater than the hard"),
        ("limits", {"core": ["unlimited", 1]}, "limits['core']", "limit unlimited is"),
        ("forward_signals", ["HUP"], "forward_signals[0]", "SIGUSR2, SIGWINCH"),
        ("forward_signals", ["QUIT", 12], "forward_signals[1]", "such as"),
    ],
)
def test_invalid_item_is_named_by_its_path(
    make: Make, field: str, value: object, where: str, words: str
) -> None:
    error = refuse(make, field, value)
    assert error.field == where
    assert words in error.problem


@both
def test_rules_include_success_and_give_up_codes(make: Make) -> None:
    rules = make(success_exit_codes=[0, 3], give_up_on=[4, "KILL"]).rules
    assert (rules.success, rules.give_up_on) == ({0, 3}, {4, -9})


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("target", "service.run", "target"),
        ("target", None, "target"),
        ("backend", "curio", "backend"),
        ("backend", None, "backend"),
        ("health_check_timeout", 0, "health_check_timeout"),
        ("switch_interval", 0, "switch_interval"),
        ("switch_interval", "fast", "switch_interval"),
        ("state", [], "state"),
        ("state", 0, "state"),
        ("state", {1: 2}, "state"),
        ("state", {"a": "x" * 65_536}, "state"),
        ("state", {"a": {"b": [0, {1, 2}]}}, "state['a']['b'][1]"),
        ("state", {"a": {"b": {2: 3}}}, "state['a']['b']"),
        ("state", {"a": target}, "state['a']"),
        ("state", {"a": b"x"}, "state['a']"),
        ("state", {"a": 2**64}, "state['a']"),
        ("state", {"a": -(2**63) - 1}, "state['a']"),
    ],
)
def test_invalid_option_of_a_service_is_named(
    field: str, value: object, where: str
) -> None:
    assert refuse(service, field, value).field == where


def test_state_that_contains_itself_is_rejected() -> None:
    error = refuse(service, "state", {"a": endless})
    assert error.field.startswith("state['a'][0][0]")
    assert "nested" in error.problem


def test_state_may_be_nested_as_deep_as_a_message_allows() -> None:
    """The answer to ``status`` contains it four levels deep."""

    def nested(levels: int) -> dict[str, Any]:
        return {"a": nested(levels - 1)} if levels else {}

    made = service(state=nested(31))
    status = {"id": 2, "connections": [{"state": {**made.state}}]}
    decode_object(encode_object(status).rstrip(b"\n"), DEFAULT_LIMITS.depth)
    assert "nested" in refuse(service, "state", nested(40)).problem


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("arguments", "redis-server --port 1", "arguments"),
        ("arguments", [], "arguments"),
        ("arguments", None, "arguments"),
        ("arguments", ["redis-server", 6379], "arguments[1]"),
        ("arguments", ["a\0"], "arguments[0]"),
        ("arguments", ["cat", LONE], "arguments[1]"),
        ("arguments", b"ls", "arguments[0]"),
        ("notify", 1, "notify"),
        ("tty", "yes", "tty"),
        ("notify", None, "notify"),
        ("health_check_timeout", 5, "health_check_timeout"),
        ("startup", "http://127.0.0.1/", "startup"),
        ("readiness", Probe, "readiness"),
        ("liveness", ["true"], "liveness"),
    ],
)
def test_invalid_option_of_a_command_is_named(
    field: str, value: object, where: str
) -> None:
    assert refuse(command, field, value).field == where


def test_health_check_timeout_of_a_command_needs_notify() -> None:
    assert "notify=True" in refuse(command, "health_check_timeout", 5).problem
    assert command(notify=True, health_check_timeout=5).health_check_timeout == 5


@pytest.mark.parametrize("field", ["startup", "readiness", "liveness"])
def test_command_accepts_probes(field: str) -> None:
    probe = Probe.tcp("127.0.0.1:6379")
    assert getattr(command(**{field: probe}), field) is probe
    assert getattr(command(), field) is None


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("services", service(), "services"),
        ("services", "web", "services"),
        ("services", None, "services"),
        ("services", {service()}, "services"),
        ("services", [service(), "web"], "services[1]"),
        ("services", [service(), Service], "services[1]"),
        ("services", [service(), command(), service()], "services[2].name"),
        ("services", [service(), command(name="web")], "services[1].name"),
        ("strategy", "all_for_one", "strategy"),
        ("intensity", -1, "intensity"),
        ("period", 0, "period"),
        ("auto_shutdown", "never", "auto_shutdown"),
        ("auto_shutdown", None, "auto_shutdown"),
        ("max_restarts_concurrently", 0, "max_restarts_concurrently"),
        ("stop_timeout", 0, "stop_timeout"),
        ("stop_timeout", "10", "stop_timeout"),
        ("monitors", GoodMonitor(), "monitors"),
        ("monitors", [GoodMonitor(), GoodMonitor], "monitors[1]"),
        ("monitors", [object()], "monitors[0]"),
        ("name", "no spaces", "name"),
        ("name", None, "name"),
    ],
)
def test_invalid_option_of_an_application_is_named(
    field: str, value: object, where: str
) -> None:
    assert refuse(application, field, value).field == where


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("children", service(), "children"),
        ("children", [service(), None], "children[1]"),
        ("strategy", None, "strategy"),
        ("intensity", True, "intensity"),
        ("period", "60", "period"),
        ("name", "all", "name"),
        ("name", "a.b", "name"),
    ],
)
def test_invalid_option_of_a_group_is_named(
    field: str, value: object, where: str
) -> None:
    assert refuse(group, field, value).field == where


def test_duplicate_name_names_the_first_service() -> None:
    error = refuse(application, "services", [service(), service()])
    assert "services[0] has the name 'web' already" in error.problem


def test_application_may_have_a_reserved_name() -> None:
    assert application(name="controller").name == "controller"


def test_service_is_found_by_name() -> None:
    web = service()
    made = application(services=[web], monitors=[GoodMonitor()])
    assert made.service("web") is web
    with pytest.raises(KeyError, match="absent"):
        made.service("absent")


def test_declaration_copies_mutable_values() -> None:
    """A later change of the caller's objects does not bypass the checks."""
    environment, state, arguments = {"A": "1"}, {"a": 1}, ["ls"]
    made = service(environment=environment, state=state)
    redis = command(arguments=arguments)
    for mutable in (environment, state):
        mutable.clear()
    arguments.clear()
    assert (made.environment, made.state) == ({"A": "1"}, {"a": 1})
    assert redis.arguments == ("ls",)


def test_repr_shows_name_and_count() -> None:
    assert repr(service(count=3)) == "Service('web', count=3)"
    assert repr(command()) == "Command('redis', ['redis-server'], count=1)"
    assert "Service('web', count=1)" in repr(application())


class Nameless:
    """An object whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("nothing to see")


junk = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.binary(),
        st.complex_numbers(),
        st.booleans().map(lambda is_huge: HUGE if is_huge else Nameless()),
        st.sampled_from(
            [
                *(LONE, Nameless, object(), target, print),
                *(signal.SIGKILL, signal.SIGSTOP, RestartPolicy.NEVER, sys),
                *(Backoff(), GoodMonitor(), endless, "TERM", "sync", "never"),
                *(LISTEN, Probe.tcp("a:1"), Group([]), "tcp://:0", "unix://a", "ready"),
            ]
        ),
    ),
    lambda values: st.one_of(
        st.lists(values),
        st.lists(values).map(tuple),
        st.dictionaries(st.text() | st.integers(), values),
        st.sets(st.text()),
    ),
    max_leaves=6,
)


def listen(**changes: Any) -> Listen:
    return Listen(**({"url": "tcp://127.0.0.1:1"} | changes))


def http_probe(**changes: Any) -> Probe:
    return Probe.http(**({"url": "http://127.0.0.1/"} | changes))


def tcp_probe(**changes: Any) -> Probe:
    return Probe.tcp(**({"address": "127.0.0.1:1"} | changes))


def command_probe(**changes: Any) -> Probe:
    return Probe.command(**({"arguments": ["true"]} | changes))


fields = st.sampled_from(
    [
        (make, name)
        for make, type_ in (
            (service, Service),
            (command, Command),
            (application, Application),
            (group, Group),
            (listen, Listen),
            (http_probe, Probe.http),
            (tcp_probe, Probe.tcp),
            (command_probe, Probe.command),
        )
        for name in inspect.signature(type_).parameters
    ]
)


@given(fields, junk)
@example((service, "state"), {"x": HUGE})
@example((command, "arguments"), [HUGE])
def test_any_value_is_accepted_or_rejected_by_name(
    field: tuple[Make, str], value: object
) -> None:
    """There is no other error than SpecError, and it names the option."""
    make, name = field
    error: SpecError | None = None
    try:
        make(**{name: value})
    except SpecError as exc:
        error = exc
    assert error is None or error.field.startswith(name)


@given(st.dictionaries(st.text(), junk))
def test_accepted_state_can_be_sent(state: dict[str, object]) -> None:
    """Otherwise its worker would start but never register."""
    try:
        made = service(state=state)
    except SpecError:
        return
    register = {"id": 2, "do": "register", "state": made.state}
    line = encode_object({"id": 3, "connections": [register]}).rstrip(b"\n")
    decode_object(line, DEFAULT_LIMITS.depth)


@given(st.text() | st.sampled_from(["a", "caf\udce9", LONE]))
def test_accepted_text_can_be_passed_to_a_program(text: str) -> None:
    """Otherwise starting it would raise an unexpected error."""
    with suppress(SpecError):
        os.fsencode(command(arguments=[text]).arguments[0])
    with suppress(SpecError):
        os.fsencode(command(environment={"A": text}).environment["A"])
    with suppress(SpecError):
        os.fsencode(command(directory=text).directory or "")
