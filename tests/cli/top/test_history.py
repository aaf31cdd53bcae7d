"""Test what is kept of each process."""

from __future__ import annotations

from trio_supervisor.cli.top.history import LENGTH, UsageHistory


def test_history_keeps_the_last_samples() -> None:
    history = UsageHistory()
    for number in range(LENGTH + 5):
        history.add(7, number, None)
    assert history.cpu(7) == list(range(5, LENGTH + 5))
    assert history.memory(7) == [None] * LENGTH


def test_history_drops_exited_processes() -> None:
    history = UsageHistory()
    history.add(7, 0.1, 5)
    history.add(8, 0.2, 6)
    history.keep_only([8])
    assert (history.cpu(7), history.memory(7)) == ([], [])
    assert (history.cpu(8), history.memory(8)) == ([0.2], [6])
