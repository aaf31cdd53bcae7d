"""Serve web applications by `trio_supervisor.contrib`, with real requests."""

from __future__ import annotations

import http.client
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.test_http_load import disturb_service
from tests.kits import web_app
from tests.kits.serving import (
    PACKAGE_DIRECTORY,
    PATIENCE,
    Serving,
    open_serving,
    run_cli,
    short_directory,
)

ASGI_FILES = {"web_app.py": web_app.ASGI}
BIND = 'bind="tcp://127.0.0.1:0"'
SERVERS = ("uvicorn", "hypercorn")


def address_of(serving: Serving, name: str = "web.0") -> str:
    """Return the address that worker *name* serves at."""
    url: str = serving.worker(name)["status"]
    return url.removeprefix("http://").strip("/")


@contextmanager
def connected(address: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    try:
        yield connection
    finally:
        connection.close()


def ask(address: str, path: str = "/") -> str:
    """Return the body of an answer, over a connection of its own."""
    with connected(address) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("declaration", "source"),
    [
        (f'asgi("web_app:app", {BIND}, count=2)', web_app.ASGI),
        (
            f'asgi("web_app:app", server="hypercorn", {BIND}, count=2)',
            web_app.ASGI,
        ),
        pytest.param(
            f'wsgi("web_app:app", {BIND}, count=2)',
            web_app.WSGI,
            marks=pytest.mark.alone,
        ),
        pytest.param(
            f'asgi("web_app:app", {BIND}, count=2, max_requests=100)',
            web_app.ASGI,
            marks=pytest.mark.alone,
        ),
    ],
    ids=["uvicorn", "hypercorn", "wsgi", "with max_requests"],
)
def test_load_loses_no_request_but_to_sigkill(declaration: str, source: str) -> None:
    """Reloads, SIGTERM and max_requests cost no connection."""
    report = disturb_service(
        web_app.service(declaration),
        str(PACKAGE_DIRECTORY),
        reloads=2,
        kills=2,
        files={"web_app.py": source},
    )
    assert report.counts["reload"] == 2
    assert report.counts["answers"] > 100
    assert report.counts["refused"] == 0
    assert report.broken == []


@pytest.mark.parametrize("server", SERVERS)
def test_stop_answers_the_request_in_flight_and_closes(server: str) -> None:
    source = web_app.service(f'asgi("web_app:app", server="{server}", {BIND})')
    with open_serving(source, files=ASGI_FILES) as serving:
        go = serving.directory / "tmp" / "go"
        with connected(address_of(serving)) as connection:
            connection.request("GET", f"/until/{go}")
            serving.wait_event(name="web.0", message="waiting")
            serving.process.send_signal(signal.SIGTERM)
            serving.until(lambda: status_of(serving) == "draining", "draining")
            go.touch()
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.getheader("connection") == "close"
            assert answer.read().startswith(b"pid ")
        assert serving.wait_exit() == 0
        exited = serving.wait_event(event="exited", name="web.0")
        assert (exited["returncode"], exited["is_planned"]) == (0, True)


def status_of(serving: Serving) -> str:
    found: str = serving.worker("web.0")["status"]
    return found


@pytest.mark.parametrize("server", SERVERS)
def test_draining_worker_leaves_new_connections_to_the_next(server: str) -> None:
    source = web_app.service(f'asgi("web_app:app", server="{server}", {BIND})')
    with open_serving(source, files=ASGI_FILES) as serving:
        go, address = serving.directory / "tmp" / "go", address_of(serving)
        old = serving.pids()["web.0"]
        with connected(address) as connection:
            connection.request("GET", f"/until/{go}")
            serving.wait_event(name="web.0", message="waiting")
            serving.process.send_signal(signal.SIGHUP)
            serving.until(lambda: is_draining(serving, old), "draining")
            assert f"pid {old}\n" not in {ask(address) for _ in range(20)}
            go.touch()
            assert connection.getresponse().read().decode() == f"pid {old}\n"


def is_draining(serving: Serving, process_id: int) -> bool:
    return any(
        worker["status"] == "draining"
        for worker in serving.call("workers")["workers"]
        if worker["process_id"] == process_id
    )


@pytest.mark.parametrize("server", SERVERS)
def test_request_that_does_not_end_is_cut_off_before_sigkill(server: str) -> None:
    """The application's own shutdown takes place in any case."""
    options = f'server="{server}", stop_timeout=3, {BIND}'
    source = web_app.service(f'asgi("web_app:app", {options})')
    with open_serving(source, files=ASGI_FILES) as serving:
        with connected(address_of(serving)) as connection:
            connection.request("GET", "/until/never")
            serving.wait_event(name="web.0", message="waiting")
            serving.process.send_signal(signal.SIGTERM)
            serving.wait_exit()
        exited = serving.wait_event(event="exited", name="web.0")
        assert exited["returncode"] == 0


def test_max_requests_is_a_planned_restart() -> None:
    """With one worker too, a connection is not refused: it waits for the next."""
    options = 'max_requests=3, max_requests_jitter=0, restart="never"'
    source = web_app.service(f'asgi("web_app:app", {options}, {BIND})')
    with open_serving(source, files=ASGI_FILES) as serving:
        address = address_of(serving)
        first = {ask(address) for _ in range(3)}
        exited = serving.wait_event(event="exited", name="web.0")
        assert first == {f"pid {exited['process_id']}\n"}
        assert (exited["returncode"], exited["is_planned"]) == (0, True)
        assert ask(address) not in first
        [stopping] = serving.select(event="stopping", name="web.0")
        assert stopping["cause"] == "worker"
        assert serving.worker("web.0")["restarts"] == 1


def test_requests_are_metrics_of_the_service() -> None:
    source = web_app.service(f'asgi("web_app:app", {BIND})')
    with open_serving(source, files=ASGI_FILES) as serving:
        ask(address_of(serving))
        assert ask(address_of(serving), "/broken") == "Internal Server Error"
        good = 'http_requests_total{service="web",method="GET",status="2xx"} 1'
        bad = 'http_requests_total{service="web",method="GET",status="5xx"} 1'

        def is_counted() -> bool:
            lines = serving.cli("metrics").stdout.splitlines()
            return {good, bad, 'http_requests_in_flight{service="web"} 0'} <= {*lines}

        serving.until(is_counted, "counting both requests")


def test_workers_share_one_import_of_the_application() -> None:
    """It is imported in the fork server, with the service file."""
    app = web_app.ASGI.replace("os.getpid()", "IMPORTED_BY").replace(
        "import anyio", "import anyio\nIMPORTED_BY = os.getpid()"
    )
    source = web_app.service(f'asgi("web_app:app", {BIND}, count=2, name="web")')
    with open_serving(source, files={"web_app.py": app}) as serving:
        importer = int(ask(address_of(serving)).split()[1])
        assert importer not in serving.pids().values()


FAILING = """
async def app(scope, receive, send):
    await receive()
    raise OSError("no database")
"""


def test_startup_that_fails_is_a_crash_with_its_traceback() -> None:
    source = web_app.service(f'asgi("web_app:app", restart="never", {BIND})')
    files = {"web_app.py": FAILING}
    with open_serving(source, files=files, is_ready=False) as serving:
        exited = serving.wait_event(event="exited", name="web.0")
        assert (exited["returncode"], exited["is_failure"]) == (1, True)
        printed = [
            event["message"] for event in serving.select(name="web.0", stream="stderr")
        ]
        assert printed[:2] == ["web.0 failed", "Traceback (most recent call last):"]
        assert "web_app.py" in printed[2]
        assert printed[-1] == "OSError: no database"


@pytest.mark.parametrize(
    ("app", "problem"),
    [
        ("web_app:ap", "web_app has no 'ap' (did you mean 'app'?)"),
        ("web_ap:app", "no module named 'web_ap' (did you mean 'web_app'?)"),
    ],
    ids=["attribute", "module"],
)
def test_wrong_application_is_refused_with_the_nearest(app: str, problem: str) -> None:
    with short_directory() as directory:
        for name, text in ASGI_FILES.items():
            (directory / name).write_text(text, encoding="utf-8")
        source = web_app.service(f'asgi("{app}")')
        (directory / "service.py").write_text(source, encoding="utf-8")
        done = run_cli("serve", "service.py", directory=directory)
    assert done.returncode == 10
    assert done.stderr.strip().endswith(f"service.py, line 3: app: {problem}")
