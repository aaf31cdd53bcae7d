"""Web services in a configuration file."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from trio_supervisor.application import Service
from trio_supervisor.application.fields import options_of
from trio_supervisor.config.application_file import configure, configure_code
from trio_supervisor.config.files import read_toml
from trio_supervisor.config.web_kinds import NOT_IN_WEB, WEB_KEYS, WEB_KINDS
from trio_supervisor.contrib import asgi, wsgi
from trio_supervisor.errors import SpecError
from trio_supervisor.process.spawn.importing import load_function

pytest.importorskip("uvicorn")

APP = """
async def app(scope, receive, send): ...
def wsgi(environ, start_response): return []
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop_app.py").write_text(APP)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    return tmp_path


def find(name: str) -> Any:
    return load_function(name, "")


def web(directory: Path, text: str, **environment: str) -> Service:
    path = directory / "supervisor.toml"
    path.write_text(f"[services.web]\n{text}\n")
    file = read_toml(str(path), "supervisor.toml")
    found = configure(file, find, environment).application.service("web")
    assert isinstance(found, Service)
    return found


@pytest.mark.parametrize(("kind", "function"), [("asgi", asgi), ("wsgi", wsgi)])
def test_keys_are_those_of_the_function(kind: str, function: Any) -> None:
    options = {option.name for option in options_of(Service)}
    named = [
        name
        for name, each in inspect.signature(function).parameters.items()
        if each.kind is not each.VAR_KEYWORD and name not in options | {"app"}
    ]
    assert set(WEB_KEYS[kind]) == set(named)
    assert WEB_KINDS[kind] == f"{function.__module__.rpartition('.')[0]}:{kind}"


def test_asgi_with_options(directory: Path) -> None:
    service = web(
        directory,
        """
        asgi = "shop_app:app"
        count = 3
        bind = ["tcp://127.0.0.1:${PORT:-8000}", "unix://web.sock"]
        max_requests = 1000
        nice = 5
        """,
        PORT="9000",
    )
    assert (service.name, service.count, service.nice) == ("web", 3, 5)
    urls = [listen.url for listen in service.sockets.values()]
    assert urls == ["tcp://127.0.0.1:9000", f"unix://{directory}/web.sock"]
    assert service.backend == "asyncio"


def test_wsgi_in_threads(directory: Path) -> None:
    pytest.importorskip("a2wsgi")
    service = web(directory, 'wsgi = "shop_app:wsgi"\nthreads = 7')
    target: Any = service.target
    assert target.threads == 7


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('asgi = "shop_app:ap"', r"line 2: services.web.asgi: .*mean 'app'"),
        ("asgi = 5", r"line 2: services.web.asgi: expected .*got 5"),
        ('asgi = "shop_app:app"\nbackend = "trio"', "line 3: .*backend: unknown"),
        ('asgi = "shop_app:app"\nthreads = 5', "line 3: .*threads: unknown"),
        ('wsgi = "shop_app:wsgi"\nserver = "x"', "line 3: .*server: unknown"),
        ('asgi = "shop_app:app"\nserver = "x"', "line 3: .*server: expected one of"),
        ('asgi = "shop_app:app"\nbind = "x"', "line 3: .*bind"),
        ('asgi = "a:b"\ncommand = "c"', "command, target, .*, got command and asgi"),
    ],
)
def test_mistake_has_its_line(directory: Path, text: str, problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        web(directory, text)


def test_worker_needs_no_variables(directory: Path) -> None:
    """It may not be able to read them: it runs as another user."""
    path = directory / "supervisor.toml"
    path.write_text(
        '[services.web]\nasgi = "shop_app:app"\nbind = ["tcp://:${PORT}", "tcp://:1"]\n'
        'max_requests = 9\nuser = "${USER_OF_WEB}"\n'
    )
    file = read_toml(str(path), "supervisor.toml")
    service: Any = configure_code(file, find).service("web")
    assert list(service.target.sockets) == ["http", "http2"]
    assert service.target.max_requests == 9


def test_target_and_backend_are_options_of_a_service() -> None:
    assert {*NOT_IN_WEB} <= {option.name for option in options_of(Service)}
