"""Test what event hooks accept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.kits.configured import configured
from trio_supervisor import Application, Command, Exec, SpecError, Webhook
from trio_supervisor.application import application_from_plain, application_to_plain

HOOKS = (
    Exec(["./page.sh", "now"], types=["gave_up"], timeout=5),
    Webhook("https://chat.example.org/x?y=1", names=["web.*"], level="error"),
)


def run(**options: Any) -> Exec:
    return Exec(["a"], **options)


def post(url: Any) -> Webhook:
    return Webhook(url)


def declare(on_event: Any) -> Application:
    return Application([], on_event=on_event)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Exec([]), "arguments"),
        (lambda: Exec("a b"), "arguments"),
        (lambda: Exec(["a"], types=["exitted"]), "types[0]"),
        (lambda: run(level="debug"), "level"),
        (lambda: Exec(["a"], most_per_minute=0), "most_per_minute"),
        (lambda: run(names=[5]), "names[0]"),
        (lambda: Webhook("ftp://a/b"), "url"),
        (lambda: Webhook("https:///b"), "url"),
        (lambda: Webhook("file:///etc/passwd"), "url"),
        (lambda: Webhook("https://a/ b"), "url"),
        (lambda: Webhook("https://[a"), "url"),
        (lambda: post(7), "url"),
        (lambda: declare(["a"]), "on_event[0]"),
        (lambda: declare(Exec(["a"])), "on_event"),
    ],
)
def test_mistake_names_its_option(make: Any, field: str) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert caught.value.field == field


def test_hooks_pass_as_plain_values() -> None:
    application = Application([Command("a", ["a"])], on_event=HOOKS)
    again = application_from_plain(application_to_plain(application))
    assert again.on_event == HOOKS


def test_hooks_in_toml(tmp_path: Path) -> None:
    text = """
[services.web]
command = "a"
[[on_event]]
exec = "./page.sh now"
types = ["gave_up"]
timeout = 5
[[on_event]]
webhook = "https://chat.example.org/x?y=1"
names = ["web.*"]
level = "error"
"""
    assert configured(tmp_path, text).application.on_event == HOOKS


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("types = []", "expected one of exec and webhook, got types"),
        ('exec = "a"\nwebhook = "b"', "expected one of exec and webhook"),
        ('exec = "a"\ntyp = []', "did you mean 'types'?"),
        ('exec = "a | b"', "needs a shell"),
    ],
)
def test_mistake_in_toml(tmp_path: Path, table: str, problem: str) -> None:
    with pytest.raises(SpecError, match="on_event") as caught:
        configured(tmp_path, f'[[on_event]]\n{table}\n[services.a]\ncommand = "a"')
    assert problem in str(caught.value)
