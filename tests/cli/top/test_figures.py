"""Test what is read of the metrics."""

from __future__ import annotations

from trio_supervisor.cli.top.figures import read_figures

TEXT = """\
# HELP trio_supervisor_workers Workers by state.
trio_supervisor_workers{service="web",state="ready"} 1
trio_supervisor_workers{service="web",state="failed"} 0
trio_supervisor_workers{service="jobs",state="ready"} 0
trio_supervisor_event_loop_lag_seconds{process="controller"} 3
trio_supervisor_worker_event_loop_lag_seconds{service="web",worker="web.0"} 0.0125
"""


def test_figures_have_lags_and_all_services() -> None:
    assert read_figures(TEXT) == ({"web.0": 0.0125}, ["web", "jobs"])


def test_figures_of_other_text_are_empty() -> None:
    assert read_figures("nonsense{} 1\n\n") == ({}, [])
