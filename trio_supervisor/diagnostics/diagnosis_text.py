"""Format a diagnosis as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trio_supervisor.wire.diagnosis import Diagnosis, Finding

_SEVERITIES: Final = {
    "standstill": "critical",
    "danger": "serious",
    "trouble": "warning",
}
_CERTAINTIES: Final = {"sure": "certain"}
"""Words for people, by the values on the wire; others are the same."""


def describe(diagnosis: Diagnosis) -> str:
    """Return a `Diagnosis` as text: the findings, then what was examined."""
    count = len(diagnosis.findings)
    lines = [_headline(count, diagnosis)]
    for number, finding in enumerate(diagnosis.findings, start=1):
        lines += ["", *_finding(number, finding)]
    lines += ["", "Examined:", *(f"  {line}" for line in diagnosis.looked_at)]
    if diagnosis.left_out:
        lines += ["Not examined:", *(f"  {line}" for line in diagnosis.left_out)]
    if not count and not diagnosis.left_out:
        lines += ["", *_LIMITS]
    lines += [
        "",
        f"Overhead: {diagnosis.overhead:.1%} of a CPU; the process was paused for "
        f"{diagnosis.pause * 1e3:.0f} ms in total.",
    ]
    return "\n".join(lines)


def _headline(count: int, diagnosis: Diagnosis) -> str:
    within = f"in {diagnosis.duration:.3g} s"
    if not count:
        found = f"no problem found {within}"
        return f"Incomplete: {found}" if diagnosis.left_out else found.capitalize()
    found = f"{count} problem{'' if count == 1 else 's'} found {within}"
    return f"{found}; the examination is incomplete" if diagnosis.left_out else found


_LIMITS: Final = (
    "This covers only these few seconds. `memory-sample NAME --duration 300` finds",
    "slower leaks, of less than a few kilobytes per second.",
)


def _finding(number: int, finding: Finding) -> Iterator[str]:
    severity = _SEVERITIES.get(finding.severity.value, finding.severity.value)
    certainty = _CERTAINTIES.get(finding.certainty.value, finding.certainty.value)
    yield f"{number}. {finding.title}  [{finding.kind}: {severity}, {certainty}]"
    yield f"   {finding.text}"
    yield from (f"     {line}" for line in finding.evidence)
    yield f"   {finding.advice}"
