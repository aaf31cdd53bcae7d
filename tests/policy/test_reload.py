"""Test what a reload does with each service."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.policy.reload import (
    UNKNOWN_CODE,
    Change,
    ReloadPlan,
    ServiceFacts,
    ServicePlan,
    application_changes,
    plan_reload,
)


def facts(name: str = "web", **changes: Any) -> ServiceFacts:
    defaults: dict[str, Any] = {"count": 4, "declaration": {"backend": "trio"}}
    return ServiceFacts(name=name, **(defaults | changes))


def only(plan: ReloadPlan) -> ServicePlan:
    """Return the plan for the only service."""
    (service,) = plan.services
    return service


def command(**changes: Any) -> ServiceFacts:
    return facts("redis", is_command=True, overlap=False, **changes)


def fleet(names: str) -> st.SearchStrategy[list[ServiceFacts]]:
    one = st.builds(
        ServiceFacts,
        name=st.sampled_from(names),
        count=st.integers(0, 3),
        declaration=st.dictionaries(st.sampled_from("xy"), st.sampled_from("12")),
        fingerprint=st.sampled_from(["", "abc", "def"]),
        overlap=st.booleans(),
        is_command=st.booleans(),
    )
    return st.lists(one, unique_by=lambda facts: facts.name)


@given(
    fleet("abcd"),
    fleet("bcde"),
    st.booleans(),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9)),
)
def test_plan_has_every_service_once(
    old: list[ServiceFacts],
    new: list[ServiceFacts],
    changed_only: bool,
    scaled: dict[str, int],
) -> None:
    """And each action agrees with its definition."""
    before = {one.name: one for one in old}
    after = {one.name: one for one in new}
    plan = plan_reload(old, new, changed_only=changed_only, scaled=scaled)
    names = [service.name for service in plan.services]
    assert names == [*after, *(name for name in before if name not in after)]
    for service in plan.services:
        was, becomes = before.get(service.name), after.get(service.name)
        runs = scaled.get(service.name, was.count) if was else 0
        assert service.old_count == runs
        if was is None or becomes is None:
            assert service.action == ("add" if was is None else "remove")
            assert service.count == (becomes.count if becomes else 0)
            continue
        is_same = was.declaration == becomes.declaration
        is_same &= was.is_command == becomes.is_command
        is_known = becomes.is_command or was.fingerprint == becomes.fingerprint != ""
        is_new_code = "" != was.fingerprint != becomes.fingerprint != ""
        keeps = is_same and not is_new_code
        keeps &= becomes.is_command or (changed_only and is_known)
        assert service.is_replaced is not keeps
        has_new_count = was.count != becomes.count
        assert service.count == (becomes.count if has_new_count else runs)
        is_changed = not is_same or has_new_count or is_new_code
        assert bool(service.changes) is is_changed
        rest = "keep" if keeps else "replace"
        assert service.action == ("change" if is_changed else rest)
        assert service.overlap is (was.overlap and becomes.overlap)
    json.dumps(plan.to_json())
    assert len(list(plan.lines())) == len(plan.services)


def test_lines_of_a_plan_show_the_differences() -> None:
    """As `reload --dry-run` prints them."""
    old = [facts(), facts("old"), command(), facts("jobs", fingerprint="0123456789")]
    new = [
        facts(count=8, declaration={"backend": "sync"}),
        command(),
        facts("jobs", fingerprint="abcdef0123"),
        facts("new"),
    ]
    assert list(plan_reload(old, new).lines()) == [
        "~ web: count 4 -> 8; backend trio -> sync",
        "= redis (unchanged, kept)",
        "~ jobs: code 0123456 -> abcdef0",
        "+ new",
        "- old",
    ]


def test_of_selects_services_by_action() -> None:
    plan = plan_reload([facts(), command()], [command(), facts("new")])
    assert [service.name for service in plan.of("add", "remove")] == ["new", "web"]
    same = plan_reload([command()], [command()])
    assert same.of("keep") == same.services


@pytest.mark.parametrize(
    ("old", "new", "changed_only", "action"),
    [
        ("abc", "abc", True, "keep"),
        ("abc", "abc", False, "replace"),
        ("abc", "def", True, "change"),
        ("", "abc", True, "replace"),
        ("", "", True, "replace"),
    ],
)
def test_changed_only_keeps_services_with_known_equal_code(
    old: str, new: str, changed_only: bool, action: str
) -> None:
    """And only with changed_only."""
    plan = plan_reload(
        [facts(fingerprint=old)], [facts(fingerprint=new)], changed_only=changed_only
    )
    assert only(plan).action == action


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("/srv/plugin.py", "~ web: code /srv/plugin.py -> modified"),
        (UNKNOWN_CODE, "= web (unchanged, replaced)"),
    ],
)
def test_changed_only_replaces_workers_with_other_code(file: str, line: str) -> None:
    """The change names the file if it is known."""
    same = [facts(fingerprint="abc"), facts("jobs", fingerprint="abc")]
    web, jobs = plan_reload(
        same, same, changed_only=True, modified={"web": file}
    ).services
    assert (web.is_replaced, str(web)) == (True, line)
    assert (jobs.is_replaced, jobs.action) == (False, "keep")


def test_changed_count_alone_replaces_no_worker() -> None:
    """Workers are added or removed; the others keep running."""
    service = only(plan_reload([command()], [command(count=8)]))
    assert (service.old_count, service.count, service.is_replaced) == (4, 8, False)
    assert str(service) == "~ redis: count 4 -> 8"


def test_scaled_count_is_kept() -> None:
    """If the declared count is unchanged."""
    service = only(plan_reload([command()], [command()], scaled={"redis": 6}))
    assert (service.count, service.is_scaled) == (6, True)
    assert str(service) == "= redis (unchanged, kept, scaled to 6)"


def test_changed_declared_count_overrides_scaled_count() -> None:
    service = only(plan_reload([facts()], [facts(count=5)], scaled={"web": 6}))
    assert (service.count, service.is_scaled) == (5, False)
    assert str(service) == "~ web: count 4 (scaled to 6) -> 5"


def test_change_of_a_secret_hides_its_values() -> None:
    """The change is shown, and a harmless variable only by its key."""
    was = {"environment": {"A": "1", "B": "2"}, "sockets": {"http": "x"}}
    becomes = {"environment": {"B": "3", "C": "4"}, "sockets": {"http": "y"}}
    plan = plan_reload([facts(declaration=was)], [facts(declaration=becomes)])
    assert only(plan).changes == (
        Change("environment['A']", "(hidden)", "(unset)"),
        Change("environment['B']", "(hidden)", "(hidden)"),
        Change("environment['C']", "(unset)", "(hidden)"),
        Change("sockets['http']", "x", "y"),
    )


def test_change_of_a_secret_argument_hides_its_values() -> None:
    old = command(count=1, declaration={"arguments": "db --token one '--b=a b'"})
    new = command(count=1, declaration={"arguments": "db --token two '--b=a b'"})
    plan = only(plan_reload([old], [new], changed_only=True))
    shown = "db --token (hidden) '--b=a b'"
    assert plan.changes == (Change("arguments", shown, shown),)


def test_long_value_is_shortened() -> None:
    """So that a line stays readable."""
    plan = plan_reload(
        [facts(declaration={"x": "a"})], [facts(declaration={"x": "b" * 99})]
    )
    (change,) = only(plan).changes
    assert (change.old, len(change.new), change.new[-2:]) == ("a", 60, "b…")


def test_long_values_are_shortened_to_their_difference() -> None:
    """If they begin alike, both are shown from the difference on."""
    start = "run --option " * 9
    old, new = (facts(declaration={"x": f"{start}{end}"}) for end in ("1", "2" * 99))
    (change,) = only(plan_reload([old], [new])).changes
    shown = f"…{start[-20:]}"
    assert (change.old, change.new[:22]) == (f"{shown}1", f"{shown}2")
    assert len(change.new) == 60


def test_service_that_becomes_a_command_is_replaced() -> None:
    """They only share their name."""
    plan = plan_reload([facts()], [facts(is_command=True)])
    assert only(plan).changes == (Change("kind", "service", "command"),)
    assert only(plan).is_replaced


def test_changes_of_the_application_have_their_own_line() -> None:
    old = {"auto_shutdown": "any", "groups": {"shop": "one_for_one", "a": "x"}}
    new = {"auto_shutdown": "all", "groups": {"shop": "one_for_all"}}
    plan = plan_reload([facts()], [facts()], changed_only=True)

    plan = evolve(plan, application=application_changes(old, new))

    assert len(plan.application) == 3
    assert list(plan.lines())[-1] == (
        "~ the application: auto_shutdown any -> all; "
        "groups['shop'] one_for_one -> one_for_all; groups['a'] x -> (unset)"
    )
    assert application_changes(old, old) == ()
