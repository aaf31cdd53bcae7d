"""What a reload changes: the application as it runs against the new one. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Final, Literal, TypeAlias

from attrs import field, frozen

from trio_supervisor.policy.secrets import HIDDEN, hide_text, join_words

Action: TypeAlias = Literal["add", "remove", "change", "replace", "keep"]

_SIGNS: Final[Mapping[Action, str]] = {
    "add": "+",
    "remove": "-",
    "change": "~",
    "replace": "=",
    "keep": "=",
}
_ABSENT: Final = object()
# Passwords are handed over in these, and a plan is printed and logged.
_SECRET: Final = frozenset({"environment", "state"})
_COMMAND_LINES: Final = frozenset({"arguments", "pre_stop"})
_LONGEST: Final = 60
# What is shown before the first difference of texts that are longer.
_CONTEXT: Final = 20
UNKNOWN_CODE: Final = ""
"""In place of a file: a worker did not say which code it has loaded."""
# As many digits of a fingerprint as git shows.
_DIGITS: Final = 7


@frozen(kw_only=True)
class ServiceFacts:
    """What a plan needs to know of one service."""

    name: str
    count: int
    """As declared."""
    declaration: Mapping[str, object]
    """Each field but the name and the count, as something that can be compared and
    shown; a mapping is compared key by key."""
    fingerprint: str = ""
    """Of its code; empty: unknown, or none of ours."""
    overlap: bool = True
    """Whether old and new workers may run beside each other."""
    is_command: bool = False


@frozen
class Change:
    """One field whose value is another one."""

    field: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.field} {self.old} -> {self.new}"


@frozen(kw_only=True)
class ServicePlan:
    """What becomes of one service."""

    name: str
    action: Action
    """``replace``: its declaration is the same, and its code may be new."""
    old_count: int
    """How many workers it has: 0 for one that is added."""
    count: int
    """How many it gets: 0 for one that is removed."""
    changes: tuple[Change, ...] = ()
    is_replaced: bool = False
    """Whether the workers that run now give way to new ones. Where not, only the
    count is brought in line."""
    overlap: bool = True
    """Whether new workers are started before the old ones are stopped."""
    is_scaled: bool = False
    """Whether *count* is what somebody set by hand."""

    def __str__(self) -> str:
        """One line: ``~ web: count 4 -> 8``."""
        start = f"{_SIGNS[self.action]} {self.name}"
        scaled = f", scaled to {self.count}" if self.is_scaled else ""
        match self.action:
            case "change":
                return f"{start}: {'; '.join(map(str, self.changes))}{scaled}"
            case "replace":
                return f"{start} (unchanged, replaced{scaled})"
            case "keep":
                return f"{start} (unchanged, kept{scaled})"
        return start

    def to_json(self) -> dict[str, object]:
        """Return it for programs."""
        return {
            "name": self.name,
            "action": self.action,
            "old_count": self.old_count,
            "count": self.count,
            "changes": [
                {"field": change.field, "old": change.old, "new": change.new}
                for change in self.changes
            ],
            "is_replaced": self.is_replaced,
            "overlap": self.overlap,
            "is_scaled": self.is_scaled,
        }


@frozen
class ReloadPlan:
    """What becomes of every service: the new ones in their order, then the removed."""

    services: tuple[ServicePlan, ...]
    application: tuple[Change, ...] = ()
    """What is new of the application as a whole; see `application_changes`."""
    not_ready: Mapping[str, str] = field(factory=dict)
    """Workers that failed before the reload and still do, and how; set once it is
    done."""

    def of(self, *actions: Action) -> tuple[ServicePlan, ...]:
        """Return those with one of *actions*."""
        return tuple(plan for plan in self.services if plan.action in actions)

    @property
    def changes_anything(self) -> bool:
        """Whether there is anything to do."""
        has_service = any(plan.action != "keep" for plan in self.services)
        return has_service or bool(self.application)

    def lines(self) -> Iterator[str]:
        """A line for each service, and one for the application, for people."""
        yield from map(str, self.services)
        if self.application:
            yield f"~ the application: {'; '.join(map(str, self.application))}"

    def to_json(self) -> dict[str, object]:
        """Return it for programs."""
        return {"services": [plan.to_json() for plan in self.services]}


def plan_reload(
    old: Sequence[ServiceFacts],
    new: Sequence[ServiceFacts],
    *,
    changed_only: bool = False,
    scaled: Mapping[str, int] | None = None,
    modified: Mapping[str, str] | None = None,
) -> ReloadPlan:
    """Return what a reload from *old* to *new* does.

    A command whose declaration is the same is always kept: nothing of it can be new.

    Args:
        changed_only: Whether services are kept whose declaration is the same, and
            whose code is known to be.
        scaled: The counts that were set by hand. Each stays, unless the declared count
            is another one now.
        modified: By the name of a service, a file that its workers have loaded and
            that is another one now, or `UNKNOWN_CODE`: it is not kept.
    """
    before = {facts.name: facts for facts in old}
    counts = {facts.name: facts.count for facts in old} | dict(scaled or {})
    plans = []
    for facts in new:
        if (was := before.pop(facts.name, None)) is None:
            plans.append(_added(facts))
        else:
            file = (modified or {}).get(facts.name)
            plans.append(_plan(was, facts, counts[facts.name], changed_only, file))
    plans += [_removed(facts, counts[facts.name]) for facts in before.values()]
    return ReloadPlan(tuple(plans))


def _added(facts: ServiceFacts) -> ServicePlan:
    return ServicePlan(name=facts.name, action="add", old_count=0, count=facts.count)


def _removed(facts: ServiceFacts, count: int) -> ServicePlan:
    return ServicePlan(name=facts.name, action="remove", old_count=count, count=0)


def _plan(
    old: ServiceFacts,
    new: ServiceFacts,
    old_count: int,
    changed_only: bool,
    modified: str | None,
) -> ServicePlan:
    changes = [*_declared_changes(old, new), *_code_change(old, new, modified)]
    is_same_code = new.is_command or (
        changed_only
        and bool(new.fingerprint)
        and new.fingerprint == old.fingerprint
        and modified is None
    )
    is_replaced = bool(changes) or not is_same_code
    count = old_count
    if new.count != old.count:
        count = new.count
        shown = f"{old.count}"
        if old_count != old.count:
            shown += f" (scaled to {old_count})"
        changes.insert(0, Change("count", shown, f"{new.count}"))
    action: Action = "change" if changes else "replace" if is_replaced else "keep"
    return ServicePlan(
        name=new.name,
        action=action,
        old_count=old_count,
        count=count,
        changes=tuple(changes),
        is_replaced=is_replaced,
        overlap=old.overlap and new.overlap,
        is_scaled=count != new.count,
    )


def application_changes(
    old: Mapping[str, object], new: Mapping[str, object]
) -> tuple[Change, ...]:
    """Return what differs of the facts of two applications."""
    return tuple(_changes(old, new))


def _declared_changes(old: ServiceFacts, new: ServiceFacts) -> Iterator[Change]:
    if old.is_command is not new.is_command:
        yield Change("kind", _kind(old), _kind(new))
    yield from _changes(old.declaration, new.declaration)


def _changes(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[Change]:
    for name in dict.fromkeys([*old, *new]):
        was, becomes = old.get(name, _ABSENT), new.get(name, _ABSENT)
        if isinstance(was, Mapping) and isinstance(becomes, Mapping):
            yield from _key_changes(name, was, becomes)
        elif was != becomes:
            yield _change(name, name, was, becomes)


def _key_changes(
    name: str, old: Mapping[object, object], new: Mapping[object, object]
) -> Iterator[Change]:
    for key in dict.fromkeys([*old, *new]):
        was, becomes = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if was != becomes:
            where = f"{name}[{key!r}]"
            yield _change(where, name, was, becomes)


def _code_change(
    old: ServiceFacts, new: ServiceFacts, modified: str | None
) -> Iterator[Change]:
    was, becomes = old.fingerprint, new.fingerprint
    if was and becomes and was != becomes:
        yield Change("code", was[:_DIGITS], becomes[:_DIGITS])
    elif modified:
        yield Change("code", modified, "modified")


def _kind(facts: ServiceFacts) -> str:
    return "command" if facts.is_command else "service"


def _shown(name: str, value: object) -> str:
    if value is _ABSENT:
        return "(unset)"
    if name in _SECRET:
        return HIDDEN
    text = value if isinstance(value, str) else repr(value)
    if name in _COMMAND_LINES:
        text = join_words(shlex.split(text))
    return hide_text(text)


def _change(field: str, name: str, was: object, becomes: object) -> Change:
    """Return a change whose texts, where they are cut, show what differs."""
    old, new = _shown(name, was), _shown(name, becomes)
    pairs = zip(old, new, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    start = 0 if same < _LONGEST - 1 or old == new else same - _CONTEXT
    return Change(field, _cut(old, start), _cut(new, start))


def _cut(text: str, start: int) -> str:
    text = f"…{text[start:]}" if start else text
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
