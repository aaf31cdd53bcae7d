"""Diagnose a worker: turn facts into findings. Pure.

Each threshold stands beside its rule, with its reason. A worker that is idle, or busy
and making progress, must be found healthy: operators stop running a diagnosis that
raises false alarms.
"""

from __future__ import annotations

from trio_supervisor.policy.doctor.facts import Facts
from trio_supervisor.policy.doctor.findings import KINDS
from trio_supervisor.policy.doctor.growth import find_growth
from trio_supervisor.policy.doctor.stalls import find_standstill
from trio_supervisor.wire.diagnosis import Certainty, Finding, Severity


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Return all findings: by severity, then by certainty, then causes before effects.

    There is at most one of each kind, except deadlocks. ``stuck``, ``spinning`` and
    ``lag`` exclude each other.
    """
    severities, certainties = list(Severity), list(Certainty)
    return tuple(
        sorted(
            [*find_standstill(facts), *find_growth(facts)],
            key=lambda one: (
                severities.index(one.severity),
                certainties.index(one.certainty),
                KINDS.index(one.kind),
            ),
        )
    )
