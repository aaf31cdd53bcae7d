"""Plan a reload: compare the running application with the new one. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Final, Literal, TypeAlias

from attrs import field, frozen

from trio_supervisor.policy.canary import CanaryTrial
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
# These may contain passwords, and a plan is printed and logged.
_SECRET: Final = frozenset({"environment", "state"})
_COMMAND_LINES: Final = frozenset({"arguments", "pre_stop"})
_LONGEST: Final = 60
# Characters shown before the first difference of longer texts.
_CONTEXT: Final = 20
UNKNOWN_CODE: Final = ""
"""Instead of a file: the worker did not report which code it has loaded."""
# As many digits of a fingerprint as git shows of a commit.
_DIGITS: Final = 7


@frozen(kw_only=True)
class ReloadOptions:
    """How an application is reloaded."""

    changed_only: bool = False
    """Whether to keep workers whose declaration and code are unchanged."""
    dry_run: bool = False
    """Whether to only return the plan."""
    canary: CanaryTrial | None = None
    """How a few new workers are tried first; None: they are not."""


@frozen(kw_only=True)
class ServiceFacts:
    """What a plan needs to know about one service."""

    name: str
    count: int
    """The declared count."""
    declaration: Mapping[str, object]
    """Each option except the name and the count, as a value that can be compared and
    shown; a mapping is compared key by key."""
    fingerprint: str = ""
    """Fingerprint of its code; empty if it is unknown, and for a command."""
    overlap: bool = True
    """Whether old and new workers may run at the same time."""
    is_command: bool = False


@frozen
class Change:
    """One option whose value changes."""

    field: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.field} {self.old} -> {self.new}"


@frozen(kw_only=True)
class ServicePlan:
    """What a reload does to one service."""

    name: str
    action: Action
    """``replace``: its declaration is unchanged, but its code may be new."""
    old_count: int
    """Number of workers before the reload; 0 for an added service."""
    count: int
    """Number of workers after the reload; 0 for a removed service."""
    changes: tuple[Change, ...] = ()
    is_replaced: bool = False
    """Whether the running workers are replaced. If not, only the count is adjusted."""
    overlap: bool = True
    """Whether new workers are started before the old ones are stopped."""
    is_scaled: bool = False
    """Whether *count* was set by ``scale``."""

    def __str__(self) -> str:
        """Return one line such as ``~ web: count 4 -> 8``."""
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
        """Return the plan as JSON values."""
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
    """What a reload does: services in their new order, then the removed ones."""

    services: tuple[ServicePlan, ...]
    application: tuple[Change, ...] = ()
    """Changes of the application as a whole: see `application_changes`."""
    not_ready: Mapping[str, str] = field(factory=dict)
    """Workers that failed before the reload and still fail, with the reason; set when
    the reload is complete."""
    canaries: tuple[str, ...] = ()
    """Workers that were tried first; set when the reload is complete."""

    def of(self, *actions: Action) -> tuple[ServicePlan, ...]:
        """Return the services with one of *actions*."""
        return tuple(plan for plan in self.services if plan.action in actions)

    def lines(self) -> Iterator[str]:
        """Yield a line for each service, and one for the application if it changes."""
        yield from map(str, self.services)
        if self.application:
            yield f"~ the application: {'; '.join(map(str, self.application))}"

    def to_json(self) -> dict[str, object]:
        """Return the plan as JSON values."""
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

    A command whose declaration is unchanged is always kept, because it has no code
    that could be new.

    Args:
        changed_only: Whether to keep services whose declaration is unchanged and whose
            code is known to be unchanged.
        scaled: The counts that were set by ``scale``. Each is kept unless the declared
            count changes.
        modified: For each service that must not be kept, a file that its workers have
            loaded and that has changed since, or `UNKNOWN_CODE`.
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
    """Return the differences between the facts of two applications."""
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
    """Return a change whose texts, if they are shortened, show the difference."""
    old, new = _shown(name, was), _shown(name, becomes)
    pairs = zip(old, new, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    start = 0 if same < _LONGEST - 1 or old == new else same - _CONTEXT
    return Change(field, _cut(old, start), _cut(new, start))


def _cut(text: str, start: int) -> str:
    text = f"…{text[start:]}" if start else text
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
