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
