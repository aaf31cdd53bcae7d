"""The table of verbs: its rows are complete, and each handler can be called."""

from __future__ import annotations

import importlib
import inspect
import shlex

import pytest

from trio_supervisor import errors
from trio_supervisor.cli.connection import UsageError
from trio_supervisor.cli.exit_codes import MEANINGS
from trio_supervisor.cli.parsing import parse_words
from trio_supervisor.cli.verbs import VERBS
from trio_supervisor.cli.verbs.verb import GROUPS, Verb

EACH_VERB = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


@EACH_VERB
def test_verb_handler_takes_the_parsed_arguments(verb: Verb) -> None:
    module, _, function = verb.handler.partition(":")
    handler = getattr(
        importlib.import_module(f"trio_supervisor.cli.{module}"), function
    )
    assert list(inspect.signature(handler).parameters) == ["arguments"]


@EACH_VERB
def test_verb_help_is_one_short_phrase(verb: Verb) -> None:
    for text in (verb.help, *(one.help for one in verb.arguments)):
        assert len(text) < 60
        assert not text.endswith(".")
    assert verb.group in GROUPS
    assert verb.description.endswith(".")


@EACH_VERB
def test_verb_examples_are_valid_command_lines(verb: Verb) -> None:
    assert 1 <= len(verb.examples) <= 2
    for example in verb.examples:
        found, _ = parse_words(shlex.split(example.words))
        assert found is verb


@EACH_VERB
def test_verb_exit_codes_are_known_and_in_order(verb: Verb) -> None:
    codes = list(verb.exit_codes)
    assert codes == sorted(codes)
    assert {0, 1, 2} <= set(codes) <= set(MEANINGS)


@EACH_VERB
@pytest.mark.parametrize("columns", [40, 80])
def test_verb_help_shows_options_examples_and_exit_codes(
    verb: Verb,
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit, match=r"^0$"):
        parse_words([verb.name, "--help"])
    shown = capsys.readouterr().out
    words = " ".join(shown.split())
    assert shown.startswith(f"usage: trio-supervisor {verb.name}")
    for argument in verb.arguments:
        if argument.is_option and argument.help:
            assert argument.names[-1] in shown
    for example in verb.examples:
        assert f"  {example.command}\n" in shown
        assert example.effect in words
    for code, meaning in verb.exit_codes.items():
        assert f"{code} {meaning}" in words
    # argparse does not wrap a long synopsis any further.
    _, *below = shown.split("\n\n")
    commands = {f"  {example.command}" for example in verb.examples}
    lines = set("\n".join(below).splitlines()) - commands
    assert all(len(line) <= columns for line in lines)


def test_help_lists_every_verb_below_its_group(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match=r"^0$"):
        parse_words(["--help"])
    found: dict[str, list[str]] = {}
    section = ""
    for line in capsys.readouterr().out.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            section = line.removesuffix(":")
        elif line.startswith("  ") and section in GROUPS:
            name, text = line.split(maxsplit=1)
            assert VERBS[name].help == text
            found.setdefault(section, []).append(name)
    assert tuple(found) == GROUPS
    assert {name: group for group in found for name in found[group]} == {
        verb.name: verb.group for verb in VERBS.values()
    }


def test_exit_codes_have_a_meaning_for_every_error() -> None:
    raised = {
        kind.exit_code
        for kind in (*vars(errors).values(), UsageError)
        if isinstance(kind, type) and issubclass(kind, errors.SupervisorError)
    }
    # Success, and signals.
    assert raised | {0, 129, 130, 143} == set(MEANINGS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "trio-supervisor: error: the following arguments are required: VERB"),
        (["dance"], "trio-supervisor: error: unknown verb 'dance'; see "),
        (["--nope"], "trio-supervisor: error: unrecognized arguments: --nope"),
        (["a\0b"], "trio-supervisor: error: an argument contains a NUL character"),
        (["scale"], "trio-supervisor scale: error: the following arguments are "),
        (
            ["logs", "--tail", "-1"],
            "trio-supervisor logs: error: argument --tail: expected ",
        ),
        (
            ["scale", "web"],
            "trio-supervisor scale: error: argument SERVICE=N: expected SERVICE=N, got "
            "'web'",
        ),
        (
            ["restart", "--max-unavailable", "0"],
            "trio-supervisor restart: error: argument --max-unavailable: expected 1 or "
            "more, got '0'",
        ),
        (
            ["ping", "--timeout", "soon"],
            "trio-supervisor ping: error: argument --timeout: expected a number of "
            "seconds above 0, got 'soon'",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_words_name_the_verb_and_the_argument(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        parse_words(words)
    assert f"\n{message}" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--version"], ["--version", "status"]])
def test_version_is_printed_with_and_without_a_verb(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        parse_words(words)
    assert capsys.readouterr().out == "0.1.0\n"
