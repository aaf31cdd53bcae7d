"""Generate the page of what `explain` says, but for options, which have their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from trio_supervisor.cli.explain_topics import GROUPS, Topic, topics
from trio_supervisor.reference import markdown

_INTRODUCTION: Final = """\
# Messages

What `trio-supervisor explain CODE` says about errors, exit codes, causes of exits and
restarts, and findings of `doctor`. It knows each [option](options.md) by its name, too.
"""


def page() -> str:
    """Return docs/reference/explain.md."""
    parts = [markdown.GENERATED, _INTRODUCTION]
    known = topics()
    for kind, title in GROUPS.items():
        if kind != "option":
            parts.append(f"## {title}\n")
            parts += [_section(topic) for topic in known if topic.kind == kind]
    return "\n".join(parts)


def _section(topic: Topic) -> str:
    lines = [f"### {topic.code}\n", f"{topic.meaning}\n"]
    lines += _list("Usual causes:", topic.causes)
    lines += _list("What to do:", topic.remedy)
    return "\n".join(lines)


def _list(title: str, items: Sequence[str]) -> Iterator[str]:
    if items:
        yield f"{title}\n"
        yield "\n".join(f"- {item}" for item in items) + "\n"
