"""The documentation shows each public name, each page and each exit code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import trio_supervisor
from trio_supervisor.cli.exit_codes import MEANINGS

DOCS = Path(__file__).parents[1] / "docs"


def _shown_objects() -> Iterator[str]:
    """Yield what mkdocstrings is asked to show, without the package's name."""
    for page in (DOCS / "reference").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        yield from re.findall(r"^::: trio_supervisor\.(\S+)$", text, re.MULTILINE)


def test_api_reference_shows_each_public_name_once() -> None:
    shown = Counter[str]()
    for name in _shown_objects():
        shown.update(trio_supervisor.EXPORTS.get(name, [name]))
    others = {"testing", "events"}
    assert shown == Counter({*trio_supervisor.__all__, *others} - {"__version__"})


@pytest.mark.parametrize("name", trio_supervisor.__all__)
def test_public_name_has_a_docstring(name: str) -> None:
    if name != "__version__":
        assert getattr(trio_supervisor, name).__doc__


def test_troubleshooting_lists_each_exit_code() -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE)
    assert {int(code) for row in rows for code in row.split(",")} == set(MEANINGS)
