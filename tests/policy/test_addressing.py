"""Which worker a word means."""

from __future__ import annotations

import pytest

from trio_supervisor.errors import NoSuchWorkerError
from trio_supervisor.policy.addressing import (
    Address,
    AmbiguousNameError,
    find_all,
    find_one,
    process_id_of,
)

ONE = Address(name="Falcon", process_id=1, connection_id="a", is_managed=False)
TWO = Address(name="Falcon", process_id=2, connection_id="b", is_managed=False)
WEB = Address(name="web.0", process_id=3, connection_id="c")
ALL = (ONE, TWO, WEB)


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("web.0", WEB),
        ("a", ONE),
        ("b", TWO),
        ("2", TWO),
        ("pid-1", ONE),
        ("3", WEB),
    ],
)
def test_a_worker_is_found_by_name_connection_or_pid(word: str, found: Address) -> None:
    assert find_one(word, ALL) == found


def test_a_shared_name_is_refused_with_its_candidates() -> None:
    with pytest.raises(AmbiguousNameError) as caught:
        find_one("Falcon", ALL)
    assert str(caught.value) == (
        "'Falcon' names 2 workers; use a connection id or a pid: "
        "Falcon (pid 1, connection a); Falcon (pid 2, connection b)"
    )


def test_a_name_comes_before_a_connection_and_that_before_a_pid() -> None:
    odd = Address(name="2", process_id=9, connection_id="x", is_managed=False)
    id_ = Address(name="y", process_id=8, connection_id="3", is_managed=False)
    assert find_all("2", [*ALL, odd]) == [odd]
    assert find_all("3", [*ALL, id_]) == [id_]


def test_two_generations_of_one_worker_are_no_ambiguity() -> None:
    newer = Address(name="web.0", process_id=4, connection_id="d")
    assert find_one("web.0", [WEB, newer]) == WEB


def test_an_unknown_word_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(NoSuchWorkerError, match=r"'x'; there are: Falcon, web\.0$"):
        find_one("x", ALL)
    with pytest.raises(NoSuchWorkerError, match=r"the name 'x'$"):
        find_one("x", [])


@pytest.mark.parametrize(
    "word", ["", "pid-", "-1", "1.0", "\u0663", "1" * 11, "pid-pid-1", "web"]
)
def test_what_is_no_process_id(word: str) -> None:
    assert process_id_of(word) is None
