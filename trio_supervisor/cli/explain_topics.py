"""What `explain` knows: codes and pages, derived from the declarations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

from attrs import field, frozen

from trio_supervisor import errors
from trio_supervisor.application import (
    Application,
    Command,
    Group,
    Listen,
    Probe,
    Service,
)
from trio_supervisor.application.autoscale import Autoscale
from trio_supervisor.application.event_hooks import Exec, Webhook
from trio_supervisor.application.fields import doc_of, options_of, unit_of
from trio_supervisor.application.timetable import Timetable
from trio_supervisor.cli.exit_codes import MEANINGS
from trio_supervisor.cli.explain_texts import CAUSES, ERRORS, EXITS, FINDINGS, Advice
from trio_supervisor.controller.event_texts import cause_text
from trio_supervisor.link.foreign_server import ForeignServerError
from trio_supervisor.policy.doctor.findings import KINDS
from trio_supervisor.policy.restart import Backoff, Cause
from trio_supervisor.reference.options import default_text, type_text

TopicKind: TypeAlias = Literal["exit code", "error", "cause", "finding", "option"]
GROUPS: Final[Mapping[TopicKind, str]] = {
    "exit code": "Exit codes",
    "error": "Errors, by their name without Error",
    "cause": "Causes of exits and restarts",
    "finding": "Findings of doctor",
    "option": "Options of declarations",
}
"""Kinds of topics in the order of the list, each with its title."""

_KINDS: Final[tuple[type[Any], ...]] = (
    *(Application, Group, Service, Command, Listen, Probe, Timetable, Autoscale),
    *(Exec, Webhook, Backoff),
)
_OPTION: Final = Advice(
    (
        "The value has the wrong type, or is outside its limits.",
        "Another option that it needs is missing, or one that it excludes is set.",
    ),
    (
        "Correct the value: the message says what was expected and what was found.",
        "`check` lists all mistakes without a start.",
    ),
)
_SEPARATORS: Final = re.compile(r"[\s_-]+")


@frozen(kw_only=True)
class Topic:
    """One page of `explain`."""

    code: str
    kind: TopicKind
    title: str
    """In some words."""
    meaning: str
    """Sentences, in Markdown."""
    causes: tuple[str, ...]
    remedy: tuple[str, ...]
    aliases: tuple[str, ...] = field(default=(), kw_only=True)
    """Other words that messages have for it."""


def topics() -> list[Topic]:
    """Return all topics, in the order of `GROUPS`."""
    return [*_exits(), *_errors(), *_causes(), *_findings(), *_options()]


def find_topics(word: str, known: list[Topic]) -> list[Topic]:
    """Return those of *known* that *word* means: a code, or a part of a message."""
    wanted = _normal(word)
    if exact := [topic for topic in known if _normal(topic.code) == wanted]:
        return exact
    found = [topic for topic in known if wanted in map(_normal, topic.aliases)]
    if not found and "." in word:  # the path of an option: services[1].count
        return find_topics(word.rpartition(".")[2].partition("[")[0], known)
    return found


def _normal(word: str) -> str:
    return _SEPARATORS.sub("", word).casefold().removesuffix("error")


def _exits() -> Iterator[Topic]:
    for number, meaning in MEANINGS.items():
        code = f"exit-{number}"
        advice = EXITS.get(code) or _joined(number)
        names = [name for name, kind in _error_classes() if kind.exit_code == number]
        more = f" Error: {', '.join(names)}." if names and code not in EXITS else ""
        yield Topic(
            code=code,
            kind="exit code",
            title=meaning,
            meaning=f"The command exits with code {number}: {meaning}.{more}",
            causes=advice.causes,
            remedy=advice.remedy,
            aliases=(str(number), f"exit code {number}", f"code {number}"),
        )


def _joined(number: int) -> Advice:
    """Return the advice of all errors with the exit code *number*."""
    found = [
        ERRORS[name] for name, kind in _error_classes() if kind.exit_code == number
    ]
    causes = (cause for advice in found for cause in advice.causes)
    steps = (step for advice in found for step in advice.remedy)
    return Advice(tuple(dict.fromkeys(causes)), tuple(dict.fromkeys(steps)))


def _error_classes() -> Iterator[tuple[str, type[errors.SupervisorError]]]:
    for kind in (*vars(errors).values(), ForeignServerError):
        if isinstance(kind, type) and issubclass(kind, errors.SupervisorError):
            yield kind.__name__.removesuffix("Error"), kind


def _errors() -> Iterator[Topic]:
    for name, kind in _error_classes():
        # Without docstrings (python -OO) the page has the rest.
        paragraph = (kind.__doc__ or f"{name}.").partition("\n\n")[0]
        meaning = " ".join(paragraph.replace("``", "`").split())
        yield Topic(
            code=name,
            kind="error",
            title=meaning.partition(". ")[0].removesuffix("."),
            meaning=f"{meaning} Exit code {kind.exit_code}.",
            causes=ERRORS[name].causes,
            remedy=ERRORS[name].remedy,
        )


def _causes() -> Iterator[Topic]:
    for cause in Cause:
        advice = CAUSES[cause.value]
        yield Topic(
            code=f"cause-{cause.value}",
            kind="cause",
            title=advice.meaning.removesuffix("."),
            meaning=advice.meaning,
            causes=advice.causes,
            remedy=advice.remedy,
            aliases=(cause.value, cause_text(cause)),
        )


def _findings() -> Iterator[Topic]:
    for kind in KINDS:
        advice = FINDINGS[kind]
        yield Topic(
            code=f"finding-{kind}",
            kind="finding",
            title=advice.meaning.removesuffix("."),
            meaning=advice.meaning,
            causes=advice.causes,
            remedy=advice.remedy,
            aliases=(kind,),
        )


def _options() -> Iterator[Topic]:
    for kind in _KINDS:
        for each in options_of(kind):
            facts = {
                "Type": type_text(each),
                "Unit": unit_of(each),
                "Default": default_text(each),
            }
            more = "".join(f" {name}: {text}." for name, text in facts.items() if text)
            yield Topic(
                code=f"{kind.__name__}.{each.name}",
                kind="option",
                title=f"option of {kind.__name__}",
                meaning=f"{doc_of(each)}{more}",
                causes=_OPTION.causes,
                remedy=_OPTION.remedy,
                aliases=(each.name,),
            )
