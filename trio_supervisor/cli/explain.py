"""Explain a code: what it means, usual causes, and what to do."""

from __future__ import annotations

import shutil
import textwrap
from argparse import Namespace
from typing import Final

from attrs import asdict

from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.cli.explain_topics import GROUPS, Topic, find_topics, topics
from trio_supervisor.cli.output import print_json, print_line
from trio_supervisor.errors import BadRequestError

_WIDEST: Final = 80
_NARROWEST: Final = 40


def run_explain(arguments: Namespace) -> None:
    """Print the pages of a code, or the list of all codes."""
    known = topics()
    found = known if arguments.code is None else _found(arguments.code, known)
    if arguments.json:
        print_json([asdict(topic) for topic in found])
        return
    width = max(_NARROWEST, min(shutil.get_terminal_size().columns, _WIDEST))
    if arguments.code is None:
        lines = _list(found, width)
    else:
        lines = [line for topic in found for line in ("", *_page(topic, width))][1:]
    for line in lines:
        print_line(line)


def _found(word: str, known: list[Topic]) -> list[Topic]:
    """Return the topics that *word* means, those that say the same once."""
    found: dict[tuple[str, str], Topic] = {}
    for topic in find_topics(word, known):
        found.setdefault((topic.kind, topic.meaning), topic)
    if not found:
        names = [topic.code for topic in known]
        names += [alias for topic in known for alias in topic.aliases]
        hint = did_you_mean(word, names) or "; `explain` alone lists all"
        raise BadRequestError(f"unknown code {word!r:.60}{hint}")
    return list(found.values())


def _page(topic: Topic, width: int) -> list[str]:
    lines = [f"{topic.code} ({topic.kind})", *_wrapped(topic.meaning, width, "  ")]
    for title, items in (
        ("Usual causes:", topic.causes),
        ("What to do:", topic.remedy),
    ):
        if items:
            lines += ["", f"  {title}"]
        for item in items:
            lines += _wrapped(item, width, "    ", "  - ")
    return lines


def _list(known: list[Topic], width: int) -> list[str]:
    lines = []
    for kind, title in GROUPS.items():
        found = [topic for topic in known if topic.kind == kind]
        lines += ["", title]
        if kind == "option":  # their names say most
            names = dict.fromkeys(alias for topic in found for alias in topic.aliases)
            lines += _wrapped(", ".join(names), width, "  ")
            continue
        column = max(len(topic.code) for topic in found) + 2
        for topic in found:
            start = f"  {topic.code:<{column}}"
            lines += _wrapped(topic.title, width, " " * len(start), start)
    return lines[1:]


def _wrapped(text: str, width: int, indent: str, first: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
