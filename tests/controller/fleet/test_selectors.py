"""From the names that people give to the workers that they mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.controller.fleet.selectors import choose
from trio_supervisor.errors import NoSuchWorkerError

SERVICES = {"web": ["web.0", "web.1"], "jobs": ["jobs.0"], "none": []}
WORKERS = {name: name for names in SERVICES.values() for name in names}


def chosen(*names: str) -> list[str]:
    return choose(names, WORKERS, SERVICES)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["web.1"], ["web.1"]),
        (["web"], ["web.0", "web.1"]),
        (["jobs", "web.0"], ["jobs.0", "web.0"]),
        (["web.1", "web"], ["web.1", "web.0"]),
        (["web", "web.0", "web"], ["web.0", "web.1"]),
        (["none"], []),
        (["web.*"], ["web.0", "web.1"]),
        (["*.0"], ["web.0", "jobs.0"]),
        (["web.[1-9]", "w?b.0"], ["web.1", "web.0"]),
        ([], []),
    ],
)
def test_a_name_means_a_worker_or_a_service(
    names: list[str], expected: list[str]
) -> None:
    """Each once, in the order in which they are named."""
    assert chosen(*names) == expected


@pytest.mark.parametrize("name", ["web.2", "we", "web.", "", "x*", "WEB", "all"])
def test_a_name_that_means_nothing_is_refused_with_those_that_do(name: str) -> None:
    with pytest.raises(NoSuchWorkerError) as caught:
        chosen("web", name)
    assert repr(name) in str(caught.value)
    assert "services: web, jobs, none" in str(caught.value)


def test_where_there_is_nothing_that_is_said() -> None:
    with pytest.raises(NoSuchWorkerError, match="services: none"):
        choose(["web"], {}, {})


def test_a_long_name_is_cut() -> None:
    with pytest.raises(NoSuchWorkerError) as caught:
        chosen(10_000 * "x")
    assert len(str(caught.value)) < 300


def test_equal_workers_are_still_different_ones() -> None:
    """Chosen by identity: what stands for a worker need not be hashable."""
    first, second = [1], [1]
    assert choose(["a", "b"], {"a": first, "b": second}, {}) == [first, second]


@given(st.lists(st.sampled_from([*WORKERS, *SERVICES])))
def test_nobody_is_chosen_twice_and_nobody_left_out(names: list[str]) -> None:
    found = chosen(*names)
    assert len(found) == len(set(found))
    assert set(found) == {
        worker for name in names for worker in SERVICES.get(name, [name])
    }
