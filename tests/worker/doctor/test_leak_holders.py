"""Which step of a chain of holders is told first."""

from __future__ import annotations

import trio
from attrs import evolve

from trio_supervisor.wire.memory_reports import Step
from trio_supervisor.worker.doctor.leak_holders import holder_in

ROOT = Step(text="local variable f of pump()", file="/srv/app.py", line=19)
CACHE = Step(text="lru_cache of cached()", file="/srv/app.py", line=4)
DICT = Step(text="a dict of 100")
SESSION = Step(
    text="attribute data of Session", file="/srv/app.py", line=9, is_new=True
)
LOOP = Step(text="variable runner", file=trio._core._run.__file__, line=1)
PACKAGE = Step(text="attribute lock of Lock", file=trio._sync.__file__, line=7)


def test_the_nearest_of_the_application_is_the_holder() -> None:
    assert holder_in([ROOT, CACHE, DICT]) == CACHE
    assert holder_in([ROOT, DICT]) == ROOT


def test_what_is_new_is_held_itself() -> None:
    assert holder_in([CACHE, DICT, SESSION]) == CACHE
    assert holder_in([evolve(ROOT, is_new=True), SESSION]) == evolve(ROOT, is_new=True)


def test_the_application_comes_before_a_package_and_that_before_the_loop() -> None:
    assert holder_in([LOOP, CACHE, PACKAGE]) == CACHE
    assert holder_in([LOOP, PACKAGE, DICT]) == PACKAGE
    assert holder_in([LOOP, DICT]) == LOOP


def test_where_there_is_no_chain_nobody_is_told() -> None:
    assert holder_in([]) is None
