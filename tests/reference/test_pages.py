"""The generated pages: written, checked, and current in the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_supervisor.reference.__main__ import main
from trio_supervisor.reference.pages import PAGES, outdated, write

DOCS = Path(__file__).parents[2] / "docs"


def test_committed_pages_are_current() -> None:
    """If not: run ``python -m trio_supervisor.reference docs`` and commit."""
    assert not outdated(DOCS)


def test_write_creates_every_page(tmp_path: Path) -> None:
    assert write(tmp_path) == [tmp_path / name for name in PAGES]
    assert not outdated(tmp_path)


def test_write_leaves_a_current_page_alone(tmp_path: Path) -> None:
    write(tmp_path)
    assert write(tmp_path) == []


def test_check_fails_and_lists_each_outdated_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    page = tmp_path / "reference" / "options.md"
    page.write_text("by hand")
    assert main([str(tmp_path), "--check"]) == 1
    assert f"{page}: out of date" in capsys.readouterr().err
    assert page.read_text() == "by hand"


def test_check_passes_on_current_pages(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 0
    assert main([str(tmp_path), "--check"]) == 0
