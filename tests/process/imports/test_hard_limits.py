"""An import cannot lower the hard limits of its fork server."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable

import pytest

from trio_supervisor.process.imports.hard_limits import keep_hard_limits

LIMIT = resource.RLIMIT_FSIZE
pytestmark = pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="needs Linux's prlimit"
)


def in_a_process(does: Callable[[], object]) -> None:
    """Run *does* in a separate process, which may lower its limits."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            does()
            code = 0
        except BaseException as exc:
            print(repr(exc), file=sys.__stderr__, flush=True)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    "lower",
    [
        pytest.param(lambda new: resource.setrlimit(LIMIT, new), id="setrlimit"),
        pytest.param(lambda new: resource.prlimit(0, LIMIT, new), id="prlimit"),
    ],
)
def test_lowered_hard_limit_is_recorded_and_not_set(
    lower: Callable[[tuple[int, int]], object],
) -> None:
    def does() -> None:
        _, before = resource.getrlimit(LIMIT)
        with keep_hard_limits() as wanted:
            lower((500, 1000))
            assert resource.getrlimit(LIMIT) == (500, 1000)
            assert resource.prlimit(0, LIMIT) == (500, 1000)
            lower((400, 900))
            lower((900, 900))
        assert wanted == {LIMIT: 900}
        assert resource.getrlimit(LIMIT) == (900, before)

    in_a_process(does)


def test_soft_limit_above_requested_hard_limit_is_refused() -> None:
    def does() -> None:
        with keep_hard_limits() as wanted:
            resource.setrlimit(LIMIT, (500, 1000))
            with pytest.raises(ValueError, match="exceeds maximum"):
                resource.setrlimit(LIMIT, (1001, 1000))
        assert wanted == {LIMIT: 1000}

    in_a_process(does)


def test_raised_hard_limit_without_privileges_is_refused() -> None:
    def does() -> None:
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        with keep_hard_limits() as wanted:
            resource.setrlimit(LIMIT, (500, 1000))
            with pytest.raises(ValueError, match="not allowed to raise"):
                resource.setrlimit(LIMIT, (500, 2000))
        assert wanted == {LIMIT: 1000}

    in_a_process(does)


def test_forked_child_of_the_import_sets_its_own_limits() -> None:
    def does() -> None:
        with keep_hard_limits() as wanted:
            in_a_process(lower_and_compare)
        assert not wanted

    def lower_and_compare() -> None:
        resource.setrlimit(LIMIT, (500, 1000))
        assert resource.prlimit(os.getpid(), LIMIT) == (500, 1000)

    in_a_process(does)


def test_functions_saved_in_the_block_act_normally_after_it() -> None:
    def does() -> None:
        with keep_hard_limits():
            taken = resource.setrlimit
        taken(LIMIT, (500, 1000))
        assert resource.getrlimit(LIMIT) == (500, 1000)

    in_a_process(does)
