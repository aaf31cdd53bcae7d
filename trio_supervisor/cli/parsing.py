"""Parse the command line, and write ``--help``, from the table of verbs."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence

from trio_supervisor._version import __version__
from trio_supervisor.cli.exit_codes import MEANINGS
from trio_supervisor.cli.verbs import VERBS
from trio_supervisor.cli.verbs.verb import GROUPS, PROGRAM, Verb


def parse_words(words: Sequence[str]) -> tuple[Verb, argparse.Namespace]:
    """Return the verb that *words* begin with, and its arguments.

    Raises:
        SystemExit: a word is not valid, or help was requested.
    """
    if any("\0" in word for word in words):
        _ProgramParser().error("an argument contains a NUL character")
    # Only the parser of this verb is built: all of them take as long as a ping.
    if words and words[0] in VERBS:
        name, rest = words[0], words[1:]
    else:
        name, rest = _ProgramParser().parse_verb(words)
    verb = VERBS[name]
    return verb, VerbParser(verb).parse_args(rest)


class VerbParser(argparse.ArgumentParser):
    """The parser of one verb's arguments."""

    def __init__(self, verb: Verb) -> None:
        super().__init__(prog=f"{PROGRAM} {verb.name}", description=verb.description)
        self._verb = verb
        self.set_defaults(verb=verb.name)
        for one in verb.arguments:
            text = one.full_help.replace("%", "%%") if one.help else argparse.SUPPRESS
            self.add_argument(*one.names, help=text, **one.settings)

    def format_help(self) -> str:
        """Return the help text: arguments, examples and exit codes."""
        verb = self._verb
        examples = argparse.HelpFormatter(self.prog, max_help_position=6)
        rows = [(example.command, example.effect) for example in verb.examples]
        _add_section(examples, "examples", rows)
        codes = argparse.HelpFormatter(self.prog, max_help_position=7)
        _add_section(codes, "exit codes", _rows(verb.exit_codes))
        return "\n".join(
            (super().format_help(), examples.format_help(), codes.format_help())
        )


class _ProgramParser(argparse.ArgumentParser):
    """The parser of the program's own options, and of the verb's name."""

    def __init__(self) -> None:
        super().__init__(
            prog=PROGRAM,
            usage=f"{PROGRAM} [-h] [--version] VERB ...",
            description="Start worker processes, watch them, and restart those that "
            "exit, hang or grow too large.",
        )
        self.add_argument("--version", action="version", version=__version__)
        self.add_argument("verb", nargs="?", help=argparse.SUPPRESS)
        self.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)

    def parse_verb(self, words: Sequence[str]) -> tuple[str, Sequence[str]]:
        """Return the name of the verb, and the words that follow it."""
        found = self.parse_args(words)
        if found.verb is None:
            self.error("the following arguments are required: VERB")
        if found.verb not in VERBS:
            self.error(f"unknown verb {found.verb!r}; see `{PROGRAM} --help`")
        return found.verb, found.rest

    def format_help(self) -> str:
        """Return the help text, with the verbs by group."""
        # Wide enough for the longest name of a verb.
        formatter = argparse.HelpFormatter(self.prog, max_help_position=26)
        for group in GROUPS:
            verbs = [verb for verb in VERBS.values() if verb.group == group]
            _add_section(formatter, group, [(verb.name, verb.help) for verb in verbs])
        codes = argparse.HelpFormatter(self.prog, max_help_position=7)
        _add_section(codes, "exit codes", _rows(MEANINGS))
        codes.add_text(f"See `{PROGRAM} VERB --help` for options and examples.")
        return "\n".join(
            (super().format_help(), formatter.format_help(), codes.format_help())
        )


def _rows(exit_codes: Mapping[int, str]) -> list[tuple[str, str]]:
    return [(str(code), meaning) for code, meaning in exit_codes.items()]


def _add_section(
    formatter: argparse.HelpFormatter, title: str, rows: Iterable[tuple[str, str]]
) -> None:
    """Add *rows* of a term and a text below *title*, laid out as options are."""
    formatter.start_section(title)
    formatter.add_arguments(
        argparse.Action([], dest=term, metavar=term, help=text.replace("%", "%%"))
        for term, text in rows
    )
    formatter.end_section()
