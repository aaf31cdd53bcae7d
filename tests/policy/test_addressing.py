"""Test finding workers by name, connection id and pid."""

from __future__ import annotations

import pytest

from trio_supervisor.errors import NoSuchWorkerError
from trio_supervisor.policy.addressing import (
    Address,
    AmbiguousNameError,
    find_all,
    find_one,
    is_named,
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
def test_find_one_by_name_connection_or_pid(word: str, found: Address) -> None:
    assert find_one(word, ALL) == found


def test_find_one_with_a_shared_name_lists_the_candidates() -> None:
    with pytest.raises(AmbiguousNameError) as caught:
        find_one("Falcon", ALL)
    assert str(caught.value) == (
        "'Falcon' names 2 workers; use a connection id or a pid: "
        "Falcon (pid 1, connection a); Falcon (pid 2, connection b)"
    )


def test_find_all_prefers_names_then_connections_then_pids() -> None:
    odd = Address(name="2", process_id=9, connection_id="x", is_managed=False)
    id_ = Address(name="y", process_id=8, connection_id="3", is_managed=False)
    assert find_all("2", [*ALL, odd]) == [odd]
    assert find_all("3", [*ALL, id_]) == [id_]


def test_find_one_with_two_generations_returns_the_first() -> None:
    newer = Address(name="web.0", process_id=4, connection_id="d")
    assert find_one("web.0", [WEB, newer]) == WEB


def test_find_one_with_an_unknown_name_lists_known_names() -> None:
    with pytest.raises(NoSuchWorkerError, match=r"'x'; there are: Falcon, web\.0$"):
        find_one("x", ALL)
    with pytest.raises(NoSuchWorkerError, match=r"the name 'x'$"):
        find_one("x", [])


@pytest.mark.parametrize(
    "word", ["", "pid-", "-1", "1.0", "\u0663", "1" * 11, "pid-pid-1", "web"]
)
def test_process_id_of_other_words_is_none(word: str) -> None:
    assert process_id_of(word) is None


def test_name_of_a_service_and_a_pattern_mean_its_workers() -> None:
    assert is_named("web.0", ["web"])
    assert is_named("web.0", ["jobs", "web.0"])
    assert is_named("web.10", ["web.1*"])
    assert not is_named("web.0", ["we", "web.1", "0"])
    assert not is_named("controller", ["web"])
