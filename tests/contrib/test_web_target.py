"""The target of a web service: its name, its code and its journey to a worker."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from trio_supervisor import Listen, Service
from trio_supervisor.application.facts import target_text
from trio_supervisor.contrib.web_target import WebTarget
from trio_supervisor.process.code.fingerprint import code_of

TARGET = WebTarget(
    app="web_app_of_tests:app",
    server="uvicorn",
    lifespan="auto",
    sockets={"http": Listen("tcp://127.0.0.1:8000")},
    max_requests=100,
    max_requests_jitter=10,
    stop_timeout=30.0,
)


def test_target_is_accepted_by_a_service() -> None:
    assert Service("web", TARGET, backend="asyncio").target is TARGET


def test_target_survives_the_journey_to_a_worker() -> None:
    copy = pickle.loads(pickle.dumps(TARGET))
    assert copy == TARGET
    assert target_text(copy) == target_text(TARGET)


@pytest.mark.parametrize(
    "change",
    [
        {"app": "web_app_of_tests:other"},
        {"server": "hypercorn"},
        {"max_requests": 200},
        {"threads": 4},
        {"server_options": {"root_path": "/shop"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_change_of_an_option_changes_the_declaration(change: dict[str, Any]) -> None:
    """A reload of changed services alone restarts the workers."""
    assert target_text(evolve(TARGET, **change)) != target_text(TARGET)


def test_limit_has_the_declared_jitter() -> None:
    assert (TARGET.limit(0.0), TARGET.limit(0.999)) == (100, 110)
    assert evolve(TARGET, max_requests=None).limit(0.5) is None


def test_declaration_shows_no_value_of_a_server_option() -> None:
    """The log of a reload shows it."""
    secret = evolve(TARGET, server_options={"ssl_keyfile_password": "hunter2"})
    other = evolve(TARGET, server_options={"ssl_keyfile_password": "hunter3"})
    assert "hunter2" not in target_text(secret)
    assert target_text(secret) != target_text(other)


def test_code_is_that_of_the_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload of changed services alone compares the application's files."""
    files = [tmp_path / "web_app_of_tests.py", tmp_path / "models_of_tests.py"]
    files[0].write_text("import models_of_tests\ndef app(): ...\n", encoding="utf-8")
    files[1].write_text("A = 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        __import__("web_app_of_tests")
        before = code_of(TARGET)
        files[1].write_text("A = 2\n", encoding="utf-8")
        after = code_of(TARGET)
    finally:
        for path in files:
            sys.modules.pop(path.stem, None)
    assert before.files == {path.resolve() for path in files}
    assert after.fingerprint != before.fingerprint
