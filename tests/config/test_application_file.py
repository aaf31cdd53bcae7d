"""Test what applications configuration files declare, and which mistakes are named."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.kits.configured import configured, work
from trio_supervisor import Backoff, Command, Group, Listen, MemoryMonitor, Probe
from trio_supervisor.application import AnyService, Service
from trio_supervisor.application.facts import facts_of
from trio_supervisor.application.templates import filled
from trio_supervisor.errors import SpecError, TargetError

EXAMPLE = """
[env]
GREETING = "hello"

[services.redis]
command = "redis-server --port 6379"

[services.web]
command = ["sh", "-c", "echo $GREETING on $PORT; exec sleep 1000"]
count = 2
environment = { PORT = "{8000+index}" }
nice = 5
depends_on = { redis = "ready" }
"""

COMPLETE = """
name = "shop"
stop_timeout = 25
max_restarts_concurrently = 2

[services.db]
command = ["db", "--url=${URL:-none}"]
readiness = { tcp = "127.0.0.1:5432", interval = 1 }
liveness = { command = "pg_isready -q" }
backoff = { cap = 5 }
log_file = "logs/{name}.log"
pre_stop = "db stop"
limits = { nofile = 1024 }

[services.web]
target = "tests.kits.configured:work"
sockets = { http = "tcp://127.0.0.1:${HTTP_PORT}", admin = { url = "unix://a.sock" } }
count = "${WEB_COUNT}"
backoff = false
health_check_timeout = false
stop_signal = "INT"

[groups.core]
children = ["db", "web"]
strategy = "rest_for_one"
intensity = 3

[[monitors]]
target = "trio_supervisor:MemoryMonitor"
interval = 10
maximum_size_limit = 1000
"""


def test_example_declares_the_same_as_python(tmp_path: Path) -> None:
    application = configured(tmp_path, EXAMPLE).application
    here = str(tmp_path)
    hello = {"GREETING": "hello"}
    expected = [
        Command(
            "redis",
            ["redis-server", "--port", "6379"],
            environment=hello,
            directory=here,
        ),
        Command(
            "web",
            ["sh", "-c", "echo $GREETING on $PORT; exec sleep 1000"],
            count=2,
            environment={**hello, "PORT": "{8000+index}"},
            nice=5,
            depends_on={"redis": "ready"},
            directory=here,
            expand=True,
        ),
    ]
    assert list(map(facts_of, application.services)) == list(map(facts_of, expected))
    assert filled(application.service("web"), 1).environment["PORT"] == "8001"


def test_complete_file_declares_the_same_as_python(tmp_path: Path) -> None:
    environment = {"HTTP_PORT": "8000", "WEB_COUNT": "3"}
    application = configured(tmp_path, COMPLETE, environment).application
    here = str(tmp_path)
    expected: list[AnyService] = [
        Command(
            "db",
            ["db", "--url=none"],
            readiness=Probe.tcp("127.0.0.1:5432", interval=1),
            liveness=Probe.command(["pg_isready", "-q"]),
            backoff=Backoff(cap=5),
            log_file=f"{here}/logs/{{name}}.log",
            pre_stop=["db", "stop"],
            limits={"nofile": 1024},
            directory=here,
            expand=True,
        ),
        Service(
            "web",
            work,
            sockets={
                "http": Listen("tcp://127.0.0.1:8000"),
                "admin": Listen(f"unix://{here}/a.sock"),
            },
            count=3,
            backoff=None,
            health_check_timeout=None,
            stop_signal=signal.SIGINT,
            directory=here,
        ),
    ]
    assert list(map(facts_of, application.services)) == list(map(facts_of, expected))
    (core,) = application.root.children
    assert isinstance(core, Group)
    assert (core.name, core.strategy, core.intensity) == ("core", "rest_for_one", 3)
    (monitor,) = application.monitors
    assert isinstance(monitor, MemoryMonitor)
    assert (application.name, application.stop_timeout) == ("shop", 25.0)


MISTAKES = """\
nmae = "x"
stop_timeout = "soon"
[env]
A = 1.5
S = { file = "nofile" }
[services.web]
command = ["sh", "-c", "echo ${GRETING}"]
cuont = 2
count = -1
restart = "on-failur"
environment = { PORT = "{8000+idx}" }
depends_on = { redus = "ready" }
limits = { nofiles = 3 }
[services.redis]
command = "redis | tee"
readiness = { tcp = "localhost:1", intervall = 3 }
backend = "trio"
[services.py]
target = "no_such_module:work"
backoff = { bas = 1 }
[services.none]
count = 1
[services.probed]
command = ["true"]
sockets = { http = "tcp://127.0.0.1:{8000+index}" }
startup = { }
stop_signal = 15
[groups.x]
children = ["webb"]
stratgy = "one_for_all"
[groups.y]
[[monitors]]
target = "trio_supervisor:MemoryMonitor"
intervall = 1
"""

FOUND = [
    (1, "nmae: unknown key (did you mean 'name'?)"),
    (2, "stop_timeout: expected a number of seconds, got 'soon'"),
    (4, "env.A: expected a string, a whole number, { file = ... } or"),
    (5, "env.S.file: "),
    (7, "services.web.command[2]: the variable GRETING is not set; give it a"),
    (8, "services.web.cuont: unknown key (did you mean 'count'?)"),
    (9, "services.web.count: expected 0 or more, got -1"),
    (10, "services.web.restart: expected one of 'always', 'on-failure', 'never', got"),
    (11, "services.web.environment.PORT: unknown name 'idx' in {8000+idx} (did you"),
    (12, "services.web.depends_on.redus: unknown service (did you mean 'redis'?)"),
    (13, "services.web.limits: unknown resource 'nofiles' (did you mean 'nofile'?)"),
    (15, "services.redis.command: '|' needs a shell, and a command is started without"),
    (16, "services.redis.readiness.intervall: unknown key (did you mean 'interval'?)"),
    (17, "services.redis.backend: unknown key; expected"),
    (19, "services.py.target: No module named 'no_such_module'"),
    (20, "services.py.backoff.bas: unknown key (did you mean 'base'?); expected base"),
    (21, "services.none: expected one of command, target, asgi and wsgi, got none"),
    (25, "services.probed.sockets.http: is the same for all workers; {index} and"),
    (26, "services.probed.startup: expected one of http, tcp and command, got no key"),
    (27, "services.probed.stop_signal: expected a signal such as 'SIGTERM', got 15"),
    (29, "groups.x.children[0]: unknown service or group 'webb' (did you mean 'web'?)"),
    (30, "groups.x.stratgy: unknown key (did you mean 'strategy'?)"),
    (31, "groups.y: has no children: a list of names of services and groups"),
    (34, "monitors[0].intervall: unknown key (did you mean 'interval'?)"),
]


def test_all_mistakes_are_listed_with_line_and_key(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        configured(tmp_path, MISTAKES)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{len(FOUND)} problems:"
    for line, (number, start) in zip(lines, FOUND, strict=True):
        assert line.startswith(f"  supervisor.toml, line {number}: {start}"), line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[services.a]\ncommand = "a"\ndepends_on = { b = "ready" }\n'
            '[services.b]\ncommand = "b"\ndepends_on = { a = "ready" }',
            "supervisor.toml, line 3: services.a.depends_on.b: dependency cycle: "
            "a -> b -> a",
        ),
        (
            '[services.a]\ncommand = "a"\nsockets = { x = "tcp://:80" }\n'
            '[services.b]\ncommand = "b"\n'
            'sockets = { y = { url = "tcp://:80", reuse_port = true } }',
            "supervisor.toml, line 6: services.b.sockets.y: services.a.sockets['x'] "
            "listens on tcp://*:80 with different options",
        ),
        (
            '[services."a b"]\ncommand = "a"',
            'supervisor.toml, line 1: services."a b".name: expected up to 64 letters, ',
        ),
        (
            '[services.a]\ncommand = "a"\nhealth_check_timeout = 3',
            "supervisor.toml, line 3: services.a.health_check_timeout: needs notify",
        ),
        (
            '[services.a]\ncommand = "a"\n[groups.x]\nchildren = ["a"]\n'
            '[groups.y]\nchildren = ["a"]',
            "supervisor.toml, line 6: groups.y.children[0]: 'a' is in group 'x'",
        ),
        (
            '[groups.x]\nchildren = ["y"]\n[groups.y]\nchildren = ["x"]',
            "supervisor.toml, line 1: groups.x: contains itself: x in y in x",
        ),
        (
            '[services.a]\ncommand = "a"\n[groups.a]\nchildren = []',
            "supervisor.toml, line 3: groups.a: a service has this name: "
            "supervisor.toml, line 1",
        ),
        (
            '[services.a]\ncomand = "a"',
            "2 problems:\n  supervisor.toml, line 1: services.a: expected one of "
            "command, target, asgi and wsgi, got none\n  supervisor.toml, line 2: "
            "services.a.comand: unknown key (did you mean 'command'?)",
        ),
        ("services = 3", "supervisor.toml, line 1: services: expected tables"),
        ("[services]\na = 3", "supervisor.toml, line 2: services.a: expected a table"),
        ("include = 3", "supervisor.toml, line 1: include: expected a list of"),
        ('include = ["x"]', "supervisor.toml, line 1: include[0]: x: file not found"),
        ("env = 3", "supervisor.toml, line 1: env: expected a table of variables"),
        ("monitors = 3", "supervisor.toml, line 1: monitors: expected tables"),
        (
            '[services.a]\ncommand = "a"\nschedule = { evry = 60 }',
            "supervisor.toml, line 3: services.a.schedule.evry: unknown key (did you "
            "mean 'every'?)",
        ),
    ],
)
def test_mistake_is_named_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        configured(tmp_path, text)
    assert str(caught.value).startswith(message)


def test_malformed_toml_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(TargetError) as caught:
        configured(tmp_path, '[services.web]\ncommand "x"\n')
    assert str(caught.value) == (
        "supervisor.toml, line 2: not valid TOML: Expected '=' after a key in a "
        "key/value pair"
    )


def test_included_files_add_services_with_their_own_variables(tmp_path: Path) -> None:
    found = configured(
        tmp_path,
        'include = ["conf.d/*.toml"]\nenv_file = "main.env"\n[env]\nA = "1"\n',
        files={
            "main.env": "export FROM_FILE='x y'\nREF=${FROM_FILE}!\n",
            "conf.d/a.toml": '[env]\nA = "${A}2"\n[services.a]\ncommand = "./a"\n',
            "conf.d/b.toml": '[services.b]\ncommand = "b"\nlog_file = "b.log"\n',
        },
    )
    a, b = found.application.services
    assert a.environment == {"FROM_FILE": "x y", "REF": "x y!", "A": "12"}
    assert b.environment == {"FROM_FILE": "x y", "REF": "x y!", "A": "1"}
    assert b.log_file == str(tmp_path / "conf.d/b.log")
    assert a.directory == str(tmp_path / "conf.d")
    names = ["supervisor.toml", "main.env", "conf.d/a.toml", "conf.d/b.toml"]
    assert list(found.files) == [str(tmp_path / name) for name in names]


def test_service_in_two_files_names_both_places(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        configured(
            tmp_path,
            'include = ["b.toml", "*.toml"]\n[services.a]\ncommand = "a"',
            files={"b.toml": '[services.a]\ncommand = "a"'},
        )
    assert str(caught.value) == (
        "b.toml, line 1: services.a: already declared: supervisor.toml, line 2"
    )


def test_places_have_the_line_of_each_option(tmp_path: Path) -> None:
    environment = {"HTTP_PORT": "1", "WEB_COUNT": "1"}
    places = configured(tmp_path, COMPLETE, environment).application.places
    for path, place in {
        "services[0].children[0].arguments": "line 7: services.db.command",
        "services[0].children[1]": "line 15: services.web",
        "services[0].children[1].sockets": "line 17: services.web.sockets",
        "stop_timeout": "line 3: stop_timeout",
    }.items():
        assert places[path] == f"supervisor.toml, {place}"
