"""Decide which traces are recorded. Pure.

The samplers of OpenTelemetry that need no other service; by the id of a trace, so that
all processes decide alike. Source: "Built-in samplers" of its specification.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from attrs import frozen

from trio_supervisor.errors import SpecError

_SAMPLER: Final = "OTEL_TRACES_SAMPLER"
_ARGUMENT: Final = "OTEL_TRACES_SAMPLER_ARG"
_PARENT_BASED: Final = "parentbased_"
_KINDS: Final = ("always_on", "always_off", "traceidratio")
# The ratio is compared with the last eight bytes of an id.
_IDS: Final = 2**64


@frozen
class TraceSampling:
    """The share of traces that is recorded, and whether the caller's choice counts."""

    ratio: float = 1.0
    heeds_caller: bool = True

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> TraceSampling:
        """Return what the variables say; without them, all that the caller records.

        Raises:
            SpecError: a sampler is unknown, or its argument invalid.
        """
        name = environ.get(_SAMPLER, "").strip() or f"{_PARENT_BASED}always_on"
        kind = name.removeprefix(_PARENT_BASED)
        if kind not in _KINDS:
            choices = ", ".join((*_KINDS, *(_PARENT_BASED + each for each in _KINDS)))
            raise SpecError(_SAMPLER, f"expected {choices}; got {name!r:.80}")
        ratio = {"always_on": 1.0, "always_off": 0.0}.get(kind)
        if ratio is None:
            ratio = _ratio(environ.get(_ARGUMENT, "").strip())
        return cls(ratio, heeds_caller=name.startswith(_PARENT_BASED))

    def decide(self, trace_id: str, caller: bool | None) -> bool:
        """Return whether a span of that trace is recorded.

        Args:
            trace_id: 32 hexadecimal digits.
            caller: Whether the caller records its span; None: there is none.
        """
        if caller is not None and self.heeds_caller:
            return caller
        return int(trace_id[16:], 16) < round(self.ratio * _IDS)


def _ratio(text: str) -> float:
    try:
        ratio = float(text or "1")
    except ValueError:
        ratio = math.nan
    if not 0 <= ratio <= 1:
        raise SpecError(_ARGUMENT, f"expected a number from 0 to 1, got {text!r:.80}")
    return ratio
