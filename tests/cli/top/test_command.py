"""Test where ``top`` refuses to run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.kits.serving import run_cli
from trio_supervisor.cli.top.command import check_textual
from trio_supervisor.errors import PlatformError


def test_top_without_terminal_is_a_usage_error(tmp_path: Path) -> None:
    finished = run_cli("top", directory=tmp_path)
    assert finished.returncode == 2
    assert finished.stderr == (
        "trio-supervisor: top needs a terminal; use `status` or `status --json`\n"
    )


def test_top_without_textual_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(PlatformError) as caught:
        check_textual()
    assert str(caught.value) == (
        "top needs textual; pip install 'trio_supervisor[top]'"
    )
    assert caught.value.exit_code == 14
