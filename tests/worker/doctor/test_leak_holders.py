"""Which step of a chain of holders is told first."""

from __future__ import annotations

from typing import cast

import pytest
import trio
from attrs import evolve, frozen

from trio_supervisor.wire.memory_reports import Growth, Holding, MemoryReport, Step
from trio_supervisor.worker.doctor.leak_holders import holder_in, holders_of

ROOT = Step(text="local variable f of pump()", file="/srv/app.py", line=19)
CACHE = Step(text="lru_cache of cached()", file="/srv/app.py", line=4)
DICT = Step(text="a dict of 100")
SESSION = Step(
    text="attribute data of Session", file="/srv/app.py", line=9, is_new=True
)
LOOP = Step(text="variable runner", file=trio._core._run.__file__, line=1)
PACKAGE = Step(text="attribute lock of Lock", file=trio._sync.__file__, line=7)

AT_WORK = Step(
    text="local variable rows of work(), in thread 7 at line 9",
    file="/srv/app.py",
    line=3,
    is_new=True,
)
REQUEST = evolve(
    AT_WORK, text="local variable rows of work(), of a suspended coroutine"
)


@frozen
class Report:
    """What `holders_of` reads of a report."""

    holders: tuple[Holding, ...]
    grown: tuple[Growth, ...] = ()


def titles_of(*chain: Step) -> list[str]:
    """The titles of the holders of one group of objects."""
    holding = Holding(
        class_name="list",
        location="/srv/app.py:3",
        memory=10_000,
        count=10,
        chain=chain,
        is_rooted=True,
    )
    found = holders_of(cast(MemoryReport, Report((holding,))))
    return [holder.title for holder in found]


def test_holder_is_nearest_application_object() -> None:
    assert holder_in([ROOT, CACHE, DICT]) == CACHE
    assert holder_in([ROOT, DICT]) == ROOT


def test_holder_is_never_a_new_object() -> None:
    assert holder_in([CACHE, DICT, SESSION]) == CACHE
    assert holder_in([evolve(ROOT, is_new=True), SESSION]) == evolve(ROOT, is_new=True)


def test_holder_prefers_application_to_package_to_loop() -> None:
    assert holder_in([LOOP, CACHE, PACKAGE]) == CACHE
    assert holder_in([LOOP, PACKAGE, DICT]) == PACKAGE
    assert holder_in([LOOP, DICT]) == LOOP


def test_holder_of_empty_chain_is_none() -> None:
    assert holder_in([]) is None


def test_functions_called_in_the_period_hold_no_leak() -> None:
    """A leak is held by a function that ran before, or by an old object below it."""
    assert titles_of(AT_WORK) == []
    assert titles_of(AT_WORK, SESSION) == []
    assert len(titles_of(evolve(AT_WORK, is_new=False))) == 1
    (title,) = titles_of(AT_WORK, CACHE)
    assert title.startswith(CACHE.text)


@pytest.mark.parametrize("root", [REQUEST, SESSION])
def test_other_new_roots_may_hold_a_leak(root: Step) -> None:
    assert len(titles_of(root)) == 1
