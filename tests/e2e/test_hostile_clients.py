"""Test that clients are served while another client sends hostile input."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from benchmarks.hostile import KINDS, attack
from tests.kits.serving import PATIENCE, Serving, open_serving


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """Serve four workers."""
    with open_serving() as serving:
        yield serving


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_client_does_not_delay_others(serving: Serving, kind: str) -> None:
    """The supervisor survives, no worker is restarted, and the log stays short."""
    before = serving.call("workers")
    since = len(serving.lines)
    with subprocess.Popen(attack(str(serving.socket), kind)) as attacker:
        serving.call("ping")
        assert attacker.wait(PATIENCE) == 0
    serving.call("ping")
    after = serving.call("workers")

    assert after["supervisor"]["process_id"] == before["supervisor"]["process_id"]
    assert [(w["process_id"], w["state"]) for w in after["workers"]] == [
        (w["process_id"], w["state"]) for w in before["workers"]
    ]
    assert all(len(line) < 10_000 for line in serving.lines[since:])
