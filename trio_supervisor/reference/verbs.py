"""Generate the page of all verbs of the command line, and the page of exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trio_supervisor import errors
from trio_supervisor.cli.exit_codes import MEANINGS
from trio_supervisor.cli.verbs import VERBS
from trio_supervisor.cli.verbs.verb import GROUPS, PROGRAM, Argument, Verb
from trio_supervisor.reference import markdown

_WIDTH: Final = 80
"""Columns of a synopsis."""


def verbs_page() -> str:
    """Return docs/reference/verbs.md."""
    parts = [
        markdown.GENERATED,
        "# Verbs\n",
        f"Every verb of the command line, as `{PROGRAM} VERB --help` shows it. "
        f"`python -m trio_supervisor` is the same program.\n",
    ]
    for group in GROUPS:
        verbs = [verb for verb in VERBS.values() if verb.group == group]
        rows = [(f"[`{verb.name}`](#{verb.name})", verb.help) for verb in verbs]
        parts += [f"## {group.capitalize()}\n", markdown.table(("Verb", ""), rows)]
        for verb in verbs:
            parts += _verb(verb)
    return "\n".join(parts)


def exit_codes_page() -> str:
    """Return docs/reference/exit-codes.md."""
    rows = [
        (str(code), meaning, ", ".join(_errors_with(code)))
        for code, meaning in MEANINGS.items()
    ]
    return "\n".join(
        (
            markdown.GENERATED,
            "# Exit codes\n",
            "Exit codes of the command line, and the [errors](errors.md) that lead to "
            "them; every other error leads to 1. For some [verbs](verbs.md) a code has "
            "a more precise meaning. `serve` "
            "stops everything before it exits, with any code.\n",
            markdown.table(("Code", "Meaning", "Error"), rows),
        )
    )


def _verb(verb: Verb) -> Iterator[str]:
    yield f"### {verb.name}\n"
    yield f"{verb.description}\n"
    yield _block(_synopsis(verb))
    if shown := [argument for argument in verb.arguments if argument.help]:
        rows = [
            (markdown.code(_spelling(one)), one.help, one.shown_default)
            for one in shown
        ]
        yield markdown.table(("Argument", "Meaning", "Default"), rows)
    examples = (f"# {example.effect}\n{example.command}" for example in verb.examples)
    yield _block("\n".join(examples), "sh")
    codes = [(str(code), meaning) for code, meaning in verb.exit_codes.items()]
    yield markdown.table(("Exit code", "Meaning"), codes)


def _block(text: str, language: str = "text") -> str:
    return f"```{language}\n{text}\n```\n"


def _synopsis(verb: Verb) -> str:
    """Return the command line of *verb* with all arguments, wrapped."""
    start = f"{PROGRAM} {verb.name}"
    lines = [start]
    for argument in verb.arguments:
        if not argument.help:
            continue
        word = _usage(argument)
        if len(lines[-1]) + 1 + len(word) > _WIDTH:
            lines.append(" " * len(start))
        lines[-1] += f" {word}"
    return "\n".join(lines)


def _usage(argument: Argument) -> str:
    """Return *argument* as it stands in a synopsis."""
    spelling = _spelling(argument).rpartition(", ")[2]
    if argument.is_option:
        return f"[{spelling}]"
    match argument.settings.get("nargs"):
        case "?":
            return f"[{spelling}]"
        case "*":
            return f"[{spelling} ...]"
        case "+":
            return f"{spelling} [{spelling} ...]"
    return spelling


def _spelling(argument: Argument) -> str:
    """Return the names of *argument* with the placeholder of its value."""
    choices = argument.settings.get("choices")
    value = argument.settings.get("metavar") or "|".join(choices or ())
    if not argument.is_option:
        return str(value)
    return " ".join(filter(None, (", ".join(argument.names), value)))


def _errors_with(code: int) -> Iterator[str]:
    """Yield the names of the errors with exit code *code*, as inline code.

    None for 1, which all other errors lead to.
    """
    for name, kind in vars(errors).items():
        if code != 1 and getattr(kind, "exit_code", None) == code:
            yield markdown.code(name)
