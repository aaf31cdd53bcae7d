"""Test verbs that run as processes of their own."""

from __future__ import annotations

from trio_supervisor.cli.top.verb_run import VerbRun


def test_verb_run_returns_exit_code_and_output() -> None:
    code, output = VerbRun(("ping",), "/nowhere/a.ipc").wait()
    assert code == 3
    assert output.startswith("trio-supervisor: no supervisor answers at /nowhere/a.ipc")


def test_killed_verb_ends() -> None:
    run = VerbRun(("status", "--wait-ready", "--timeout", "1000"), "/nowhere/a.ipc")
    run.kill()
    assert run.wait()[0] == -9
