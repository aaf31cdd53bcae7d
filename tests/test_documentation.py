"""The documentation's API reference and navigation are complete."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

import trio_supervisor

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def test_api_reference_shows_each_public_name_once() -> None:
    shown: Counter[str] = Counter()
    for page in (DOCS / "reference").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        shown.update(re.findall(r"^::: trio_supervisor\.(\w+)$", text, re.MULTILINE))
    assert shown == Counter({*trio_supervisor.__all__, "testing"} - {"__version__"})


@pytest.mark.parametrize("name", trio_supervisor.__all__)
def test_public_name_has_a_docstring(name: str) -> None:
    if name != "__version__":
        assert getattr(trio_supervisor, name).__doc__
