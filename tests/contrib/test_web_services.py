"""Declarations of web services."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from trio_supervisor import Counter, Listen, Metrics, Service, SpecError
from trio_supervisor.contrib import asgi, wsgi
from trio_supervisor.contrib.web_metrics import WEB_METRICS
from trio_supervisor.contrib.web_target import WebTarget

APP = "web_app_of_tests:app"


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Make a module with an application importable."""
    pytest.importorskip("uvicorn")
    module = ModuleType("web_app_of_tests")
    module.app = lambda *_: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def target_of(service: Service) -> WebTarget:
    target = service.target
    assert isinstance(target, WebTarget)
    return target


def test_service_has_defaults() -> None:
    service = asgi(APP)
    assert (service.name, service.count, service.stop_timeout) == ("web", 1, 30)
    assert service.backend == "asyncio"
    assert service.sockets == {"http": Listen("tcp://127.0.0.1:8000")}
    assert service.metrics == WEB_METRICS
    assert target_of(service).max_requests is None


def test_hypercorn_runs_under_trio() -> None:
    pytest.importorskip("hypercorn")
    assert asgi(APP, server="hypercorn").backend == "trio"


def test_wsgi_application_has_threads_and_no_lifespan() -> None:
    pytest.importorskip("a2wsgi")
    target = target_of(wsgi(APP, threads=3))
    assert (target.threads, target.lifespan, target.server) == (3, "off", "uvicorn")


def test_options_of_the_service_are_passed_on() -> None:
    own = Metrics(orders_total=Counter())
    service = asgi(
        APP,
        name="shop",
        count=3,
        stop_timeout=5,
        metrics=own,
        sockets={"admin": Listen("tcp://127.0.0.1:9001")},
        environment={"A": "1"},
        restart="on-failure",
    )
    assert (service.name, service.count, service.stop_timeout) == ("shop", 3, 5)
    assert service.environment == {"A": "1"}
    assert set(service.sockets) == {"admin", "http"}
    assert service.metrics is not None
    assert "orders_total" in set(service.metrics)
    assert set(target_of(service).sockets) == {"http"}


def test_service_may_listen_on_several_addresses() -> None:
    small = Listen("unix://web.sock", backlog=16)
    service = asgi(APP, bind=["tcp://127.0.0.1:8000", small])
    assert list(service.sockets) == ["http", "http2"]
    assert target_of(service).sockets == service.sockets


@pytest.mark.parametrize(
    ("most", "jitter", "expected"),
    [(None, None, 0), (1000, None, 100), (1000, 7, 7), (1000, 0, 0)],
)
def test_jitter_is_a_tenth_unless_declared(
    most: int | None, jitter: int | None, expected: int
) -> None:
    target = target_of(asgi(APP, max_requests=most, max_requests_jitter=jitter))
    assert (target.max_requests, target.max_requests_jitter) == (most, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"server": "granian"}, r"server: granian opens its own listening socket"),
        ({"server": "gunicorn"}, r"server: gunicorn manages processes itself"),
        ({"server": "uvicon"}, r"server: expected one of .*did you mean 'uvicorn'"),
        ({"bind": "8000"}, r"bind: expected tcp://HOST:PORT or unix://PATH"),
        ({"bind": []}, r"bind: expected at least one address"),
        ({"max_requests": 0}, r"max_requests: "),
        ({"max_requests_jitter": 5}, r"max_requests_jitter: needs max_requests"),
        ({"lifespan": "yes"}, r"lifespan: expected one of"),
        ({"backend": "trio"}, r"backend: is chosen by the server"),
        ({"stop_timeout": -1}, r"stop_timeout: "),
        ({"metrics": 3}, r"metrics: expected Metrics"),
        ({"server_options": {"prot": 1}}, r"server_options: .*'prot'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        asgi(APP, **options)


def test_unknown_application_is_an_error_of_the_declaration() -> None:
    with pytest.raises(SpecError, match=r"has no 'ap' \(did you mean 'app'\?\)"):
        asgi("web_app_of_tests:ap")


def test_server_that_is_not_installed_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if "hypercorn" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hypercorn", None)
    with pytest.raises(SpecError, match=r"pip install 'trio_supervisor\[hypercorn\]'"):
        asgi(APP, server="hypercorn")
