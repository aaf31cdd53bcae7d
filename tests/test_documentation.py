"""The documentation shows each public name, each page and each exit code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import trio_supervisor
from tests.kits.configured import configured
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
    others = {"testing", "events", "contrib"}
    assert shown == Counter({*trio_supervisor.__all__, *others} - {"__version__"})


@pytest.mark.parametrize("name", trio_supervisor.__all__)
def test_public_name_has_a_docstring(name: str) -> None:
    if name != "__version__":
        assert getattr(trio_supervisor, name).__doc__


def test_troubleshooting_lists_each_exit_code() -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE)
    assert {int(code) for row in rows for code in row.split(",")} == set(MEANINGS)


def _lines_of_coming_from() -> Iterator[str]:
    """Yield each line of TOML in the last column of the tables."""
    text = (DOCS / "coming-from.md").read_text(encoding="utf-8")
    for row in re.findall(r"^\| .* \| (.*) \|$", text, re.MULTILINE):
        yield from (code for code in re.findall(r"`([^`]+)`", row) if " = " in code)


@pytest.mark.parametrize("line", sorted(set(_lines_of_coming_from())))
def test_line_for_those_who_come_from_elsewhere_is_accepted(
    line: str, tmp_path: Path
) -> None:
    (tmp_path / ".env").touch()
    other = '[services.{0}]\ncommand = "a"\nrestart = "on-failure"\n'
    others = "".join(map(other.format, ("db", "redis", "migrate")))
    name = line.partition(" = ")[0]
    is_outside = name in ("strategy", "auto_shutdown")
    what = "" if name == "command" else 'command = "a"'
    if name == "start_method":
        what = 'target = "tests.kits.configured:work"'
    more = "notify = true" if name == "health_check_timeout" else ""
    if name.startswith("log_max"):
        more = 'log_file = "a"'
    outside, inside = (line, "") if is_outside else ("", line)
    text = f"{outside}\n[services.x]\n{what}\n{inside}\n{more}\n{others}"

    application = configured(tmp_path, text).application

    assert application.service("x").name == "x"
