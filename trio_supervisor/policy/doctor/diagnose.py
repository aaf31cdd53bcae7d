"""What is wrong with a worker. Pure: facts come in, findings in plain words go out.

Each threshold stands beside its rule, with its reason. They are such that a worker that
is idle, or has much to do and gets on with it, is found healthy: a doctor that cries
wolf is not asked again.
"""

from __future__ import annotations

from trio_supervisor.policy.doctor.facts import Facts
from trio_supervisor.policy.doctor.findings import KINDS, Certainty, Finding, Severity
from trio_supervisor.policy.doctor.growth import find_growth
from trio_supervisor.policy.doctor.stalls import find_standstill


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Return what is wrong: the worst first, then the most certain, then the cause.

    At most one of each kind, but for deadlocks; and of ``stuck``, ``spinning`` and
    ``lag`` at most one, for these exclude each other.
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
