"""What a verb of the command line is: a row of the table in `cli.verbs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

PROGRAM: Final = "trio-supervisor"

GROUPS: Final = ("run", "configure", "inspect", "control", "diagnose")
"""Groups of verbs, in the order of ``--help``."""

AFTER_OBSERVING: Final = 120.0
"""Time that a worker gets for its report after it was observed [s]."""


class Argument(NamedTuple):
    """An option or a positional argument of a verb."""

    names: tuple[str, ...]
    help: str
    """A noun phrase or an imperative sentence; empty: accepted, but not shown."""
    shown_default: str
    settings: Mapping[str, Any]
    """Keyword arguments of `argparse.ArgumentParser.add_argument`."""

    @property
    def is_option(self) -> bool:
        """Whether it is an option, not a positional argument."""
        return self.names[0].startswith("-")

    @property
    def full_help(self) -> str:
        """The help text, with the default."""
        default = f" (default: {self.shown_default})" if self.shown_default else ""
        return f"{self.help}{default}"


class Example(NamedTuple):
    """A command line, without the program's name, and what it does."""

    words: str
    effect: str

    @property
    def command(self) -> str:
        """The whole command line."""
        return f"{PROGRAM} {self.words}"


class Verb(NamedTuple):
    """One verb of the command line."""

    name: str
    group: str
    help: str
    """Shown in the list of verbs."""
    description: str
    """Shown by the verb's own ``--help``, above its options."""
    arguments: tuple[Argument, ...]
    examples: tuple[Example, ...]
    exit_codes: Mapping[int, str]
    """Every exit code that the verb can give, with its meaning there."""
    handler: str
    """``module:function`` below `trio_supervisor.cli`; imported when it is called."""


def argument(
    *names: str,
    help: str,  # noqa: A002 (the name that argparse uses)
    shown_default: str | None = None,
    **settings: Any,
) -> Argument:
    """Return an argument, declared as for `argparse.ArgumentParser.add_argument`.

    Args:
        help: The help text, without the default.
        shown_default: The default in words; None: that of *settings*, if there is one.
    """
    if shown_default is None:
        default = settings.get("default")
        shown_default = "" if default is None else f"{default}"
    return Argument(names, help, shown_default, settings)
