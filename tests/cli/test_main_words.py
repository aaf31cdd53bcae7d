"""Arguments of ``call``, durations, socket paths, and imports of quick verbs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.kits.serving import environment_of_children
from trio_supervisor.cli.connection import UsageError
from trio_supervisor.cli.diagnose import parse_fields
from trio_supervisor.cli.output import format_duration
from trio_supervisor.cli.serve import serve_socket


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ([], {}),
        (["duration=10"], {"duration": 10}),
        (["duration=1.5", "deep=true"], {"duration": 1.5, "deep": True}),
        (["name=web"], {"name": "web"}),
        (["name="], {"name": ""}),
        (["text=a=b"], {"text": "a=b"}),
        (['names=["a", "b"]'], {"names": ["a", "b"]}),
        (['number="10"'], {"number": "10"}),
        (["nothing=null"], {"nothing": None}),
        (["half={"], {"half": "{"}),
        (["deep=" + "[" * 100_000], {"deep": "[" * 100_000}),
    ],
    ids=lambda value: str(value)[:30],
)
def test_parse_fields_takes_valid_json_as_json(
    words: list[str], fields: dict[str, Any]
) -> None:
    assert parse_fields(words) == fields


@pytest.mark.parametrize("word", ["loud", "=1", ""])
def test_parse_fields_without_key_or_equals_raises(word: str) -> None:
    with pytest.raises(UsageError, match=r"^expected key=value, got '"):
        parse_fields([word])


def test_parse_fields_with_duplicate_key_raises() -> None:
    with pytest.raises(UsageError, match=r"^'a' is given twice$"):
        parse_fields(["a=1", "b=2", "a=1"])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0.0s"),
        (12.34, "12.3s"),
        (60.0, "1m 00s"),
        (245.9, "4m 05s"),
        (3600.0, "1h 00m"),
        (12_000.0, "3h 20m"),
        (86_400.0, "1d 0h"),
        (187_200.0, "2d 4h"),
    ],
)
def test_format_duration_picks_the_unit(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("option", "target", "path"),
    [
        ("/run/a.ipc", "service.py", "/run/a.ipc"),
        (None, "/srv/service.py", "/srv/supervisor.ipc"),
        (None, "/srv/service.py:other", "/srv/supervisor.ipc"),
    ],
)
def test_serve_socket_is_beside_the_service_file(
    option: str | None, target: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRIO_SUPERVISOR_SOCKET", raising=False)
    assert serve_socket(option, target) == path


def test_serve_socket_uses_the_environment_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRIO_SUPERVISOR_SOCKET", "/run/b.ipc")

    assert serve_socket(None, "/srv/service.py") == "/run/b.ipc"
    assert serve_socket("/run/a.ipc", "/srv/service.py") == "/run/a.ipc"


@pytest.mark.parametrize(
    "modules",
    [["cli.main"], ["cli.main", "cli.status", "cli.control", "cli.diagnose"]],
    ids=["before the verb is known", "for all quick verbs"],
)
def test_quick_verbs_import_no_slow_library(modules: list[str]) -> None:
    """Each of these takes longer to import than a whole ping."""
    imports = "; ".join(f"import trio_supervisor.{module}" for module in modules)
    loaded = subprocess.check_output(
        [sys.executable, "-c", f"import sys; {imports}; print(*sys.modules)"],
        env=environment_of_children(),
        text=True,
    ).split()

    assert "trio_supervisor.cli.main" in loaded
    heavy = {"trio", "anyio", "asyncio", "rich", "click", "attr", "attrs", "cattrs"}
    assert heavy.intersection(loaded) == set()


def test_package_imports_lazily() -> None:
    program = (
        "import sys, trio_supervisor; assert 'trio' not in sys.modules; "
        "assert 'Service' in dir(trio_supervisor); trio_supervisor.Service; "
        "print(all(hasattr(trio_supervisor, name) for name in trio_supervisor.__all__))"
    )
    answer = subprocess.check_output(
        [sys.executable, "-c", program], env=environment_of_children(), text=True
    )
    assert answer == "True\n"
