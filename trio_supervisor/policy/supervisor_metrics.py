"""What the supervisor process counts of its calls and connections. Pure.

It writes to memory that the controller reads, as workers do: `process.shared_numbers`.
"""

from __future__ import annotations

from typing import Final

from trio_supervisor.policy.metrics import Counter, Gauge, Histogram, Metric, Metrics
from trio_supervisor.wire.protocol import OPERATIONS, Operation, Side

CALLS: Final = "trio_supervisor_calls_total"
DURATION: Final = "trio_supervisor_call_duration_seconds"
CONNECTIONS: Final = "trio_supervisor_connections"

RESULTS: Final = ("ok", "failed", "cancelled")
KINDS: Final = ("client", "worker")
_BUCKETS: Final = (0.001, 0.01, 0.1, 1.0, 10.0)
"""From a call that is answered from memory [s] to a restart that waits for a worker."""


def _is_counted(type_: type[Operation]) -> bool:
    """Return whether clients or workers call it over the supervisor's socket."""
    sides = (Side.SUPERVISOR, Side.CONTROLLER)
    is_answered = any(side in type_.spec.answered_by for side in sides)
    return is_answered and type_.spec.called_by is Side.CLIENT


_operations = sorted(do for do, type_ in OPERATIONS.items() if _is_counted(type_))

_metrics: Final[dict[str, Metric]] = {
    CALLS: Counter(
        "Calls answered by the supervisor.",
        labels={"operation": _operations, "result": RESULTS},
    ),
    DURATION: Histogram(
        "How long answered calls took, streams excepted.",
        labels={"operation": _operations},
        buckets=_BUCKETS,
    ),
    CONNECTIONS: Gauge("Open connections.", labels={"kind": KINDS}),
}
SUPERVISOR_METRICS: Final = Metrics(**_metrics)
