"""A few rounds of real chaos; ``nox -s chaos`` runs more."""

from __future__ import annotations

import sys

import pytest

from tests.chaos.rounds import run_rounds

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="limits other processes"),
]

ROUNDS = 4


def test_all_is_well_after_each_round() -> None:
    assert run_rounds(seed=1, is_over=lambda number: number >= ROUNDS) > 0
