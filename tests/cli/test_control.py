"""Test which options of `reload` are refused before anything is called."""

from __future__ import annotations

import pytest

from trio_supervisor.cli.main import main


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--for", "5"], "--for has no effect without --canary"),
        (["--canary", "1", "--for", "0"], "expected a number of seconds above 0"),
        (["--canary", "1", "--for", "86401"], "expected at most 86400 s"),
        (["--canary", "0"], "expected 1 or more"),
        (["--canary", "1", "--dry-run"], "--canary cannot be combined with --dry-run"),
        (["--abort", "--canary", "1"], "--abort cannot be combined with"),
        (["--abort", "--for", "5"], "--abort cannot be combined with"),
    ],
)
def test_reload_refuses_options_that_do_not_go_together(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(["reload", *words])
    except SystemExit as exc:  # argparse's
        code = exc.code
    assert code == 2
    assert problem in capsys.readouterr().err
