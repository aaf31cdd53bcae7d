"""Test the verb that explains codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.kits.serving import run_cli
from trio_supervisor.cli.encoding import SafeStream
from trio_supervisor.cli.explain_topics import topics
from trio_supervisor.cli.main import main


def explained(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["explain", *words]) == 0
    return capsys.readouterr().out


def test_explain_shows_page(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = explained(capsys, "unhealthy").splitlines()
    assert lines[0] == "cause-unhealthy (cause)"
    assert lines[1].startswith("  No heartbeat came within health_check_timeout")
    assert "  Usual causes:" in lines
    assert lines[-1] == "  - `slow-tasks NAME` shows shorter stalls."
    assert max(map(len, lines)) <= 80


def test_explain_word_with_two_meanings_shows_both(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = explained(capsys, "restart")
    assert "cause-restart (cause)" in out
    assert "Service.restart (option)" in out
    assert "Command.restart" not in out, "it means the same"


def test_explain_without_code_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    out = explained(capsys)
    words = set(out.replace(",", " ").split())
    for topic in topics():
        assert topic.code in words or set(topic.aliases) & words, topic.code
    assert max(map(len, out.splitlines())) <= 80


def test_explain_json(capsys: pytest.CaptureFixture[str]) -> None:
    found: list[dict[str, Any]] = json.loads(explained(capsys, "13", "--json"))
    (page,) = found
    assert page["code"] == "exit-13"
    assert page["kind"] == "exit code"
    assert page["causes"]
    assert page["remedy"]
    assert len(json.loads(explained(capsys, "--json"))) == len(topics())


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("NoSuchWorkr", " (did you mean 'NoSuchWorker'?)"),
        ("unhelthy", " (did you mean 'unhealthy'?)"),
        ("xyzzy", "; `explain` alone lists all"),
        ("", "; `explain` alone lists all"),
    ],
)
def test_explain_unknown_code(
    word: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", word]) == 1
    err = capsys.readouterr().err
    assert err == f"trio-supervisor: unknown code {word!r}{hint}\n"


def test_error_on_a_terminal_names_its_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SafeStream, "isatty", lambda _: True)
    assert main(["check", "none.py"]) == 10
    err = capsys.readouterr().err
    assert err.endswith("\n`trio-supervisor explain Target` says more.\n")


def test_explain_needs_no_supervisor(tmp_path: Path) -> None:
    """Nor an application."""
    done = run_cli("explain", "services[1].stop_timeout", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Service.stop_timeout (option)" in done.stdout
    assert "Default: 10.0." in done.stdout
