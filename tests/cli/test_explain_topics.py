"""Test that each declared code has a page, and each text a code."""

from __future__ import annotations

import re

import pytest

import trio_supervisor
from trio_supervisor.cli.exit_codes import MEANINGS
from trio_supervisor.cli.explain_texts import CAUSES, ERRORS, EXITS, FINDINGS
from trio_supervisor.cli.explain_topics import GROUPS, find_topics, topics
from trio_supervisor.cli.verbs import VERBS
from trio_supervisor.errors import SupervisorError
from trio_supervisor.policy.doctor.findings import KINDS
from trio_supervisor.policy.restart import Cause

TOPICS = topics()


def test_codes_are_unique_and_of_each_kind() -> None:
    codes = [topic.code for topic in TOPICS]
    assert len(codes) == len(set(codes))
    assert {topic.kind for topic in TOPICS} == set(GROUPS)


def test_each_exit_code_is_explained() -> None:
    codes = [topic.code for topic in TOPICS if topic.kind == "exit code"]
    assert codes == [f"exit-{number}" for number in MEANINGS]
    assert set(EXITS) <= set(codes)


def test_each_error_is_explained() -> None:
    names = {
        name.removesuffix("Error")
        for name in trio_supervisor.__all__
        if isinstance(kind := getattr(trio_supervisor, name), type)
        and issubclass(kind, SupervisorError)
    }
    assert names == set(ERRORS)
    assert names == {topic.code for topic in TOPICS if topic.kind == "error"}


def test_each_cause_and_finding_is_explained() -> None:
    assert set(CAUSES) == {cause.value for cause in Cause}
    assert set(FINDINGS) == set(KINDS)


def test_each_page_says_what_to_do() -> None:
    """And names verbs that exist."""
    for topic in TOPICS:
        assert topic.meaning, topic.code
        assert topic.remedy, topic.code
        assert all(text.endswith(".") for text in (*topic.causes, *topic.remedy))
        for text in topic.remedy:
            for verb in re.findall(r"`(?:trio-supervisor )?([a-z][a-z-]+) NAME", text):
                assert verb in VERBS, topic.code


@pytest.mark.parametrize(
    ("word", "codes"),
    [
        ("13", ["exit-13"]),
        ("exit code 13", ["exit-13"]),
        ("nosuchworker", ["NoSuchWorker"]),
        ("NoSuchWorkerError", ["NoSuchWorker"]),
        ("health check timeout", ["cause-unhealthy"]),
        ("finding-leak", ["finding-leak"]),
        ("deadlock", ["finding-deadlock"]),
        ("services[0].sockets['http'].backlog", ["Listen.backlog"]),
        ("Listen.backlog", ["Listen.backlog"]),
        ("a.b", []),
        (".", []),
        ("", []),
    ],
)
def test_find_topics(word: str, codes: list[str]) -> None:
    found = [t.code for t in find_topics(word, TOPICS) if t.kind != "option"]
    options = [t.code for t in find_topics(word, TOPICS) if t.kind == "option"]
    assert (found or options) == codes
