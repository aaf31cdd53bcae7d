"""A diagnosis as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from trio_supervisor.wire.diagnosis import Diagnosis, Finding


def describe(diagnosis: Diagnosis) -> str:
    """Return a `Diagnosis` as text: the findings, then what was looked at."""
    count = len(diagnosis.findings)
    lines = [_headline(count, diagnosis)]
    for number, finding in enumerate(diagnosis.findings, start=1):
        lines += ["", *_finding(number, finding)]
    lines += ["", "Looked at:", *(f"  {line}" for line in diagnosis.looked_at)]
    if diagnosis.left_out:
        lines += ["Not looked at:", *(f"  {line}" for line in diagnosis.left_out)]
    if not count and not diagnosis.left_out:
        lines += ["", *_HONEST]
    lines += [
        "",
        f"Looking took {diagnosis.overhead:.1%} of a processor; the process stood "
        f"still for {diagnosis.pause * 1e3:.0f} ms in all.",
    ]
    return "\n".join(lines)


def _headline(count: int, diagnosis: Diagnosis) -> str:
    within = f"in {diagnosis.duration:.3g} s"
    is_whole = not diagnosis.left_out
    if count:
        found = f"{count} finding{'s' if count > 1 else ''} {within}"
        return f"{found}." if is_whole else f"{found}; the look is incomplete."
    if is_whole:
        return f"Nothing found {within}."
    return f"Incomplete: nothing found {within} in what could be looked at."


_HONEST = (
    "That is of these few seconds alone. What is slow to come, as a leak of less than",
    "some kilobytes a second, is seen by `memory-sample NAME --duration 300`.",
)


def _finding(number: int, finding: Finding) -> Iterator[str]:
    yield f"{number}. {finding.title}  [{finding.severity}, {finding.certainty}]"
    yield f"   {finding.text}"
    yield from (f"     {line}" for line in finding.evidence)
    yield f"   {finding.advice}"
