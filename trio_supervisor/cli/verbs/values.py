"""Types of values on the command line, for argparse."""

from __future__ import annotations

import argparse
import math
import re
import time

from trio_supervisor.wire.limits import MAX_CANARY


def natural(text: str) -> int:
    """Return *text* as a whole number from 0 on."""
    if not text.isdecimal() or len(text) > 9:
        problem = f"expected a whole number, 0 or more, got {text!r}"
        raise argparse.ArgumentTypeError(problem)
    return int(text)


def positive(text: str) -> int:
    """Return *text* as a whole number from 1 on."""
    if (value := natural(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text!r}")
    return value


def service_count(text: str) -> tuple[str, int]:
    """Return the name and the number in ``SERVICE=N``."""
    name, equals, number = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"expected SERVICE=N, got {text!r}")
    return name, natural(number)


def seconds(text: str) -> float:
    """Return *text* as a time span [s]."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f"expected a number of seconds above 0, got {text!r}"
        )
    return value


def canary_seconds(text: str) -> float:
    """Return *text* as the time for which a canary is observed [s]."""
    if (value := seconds(text)) > MAX_CANARY:
        problem = f"expected at most {MAX_CANARY:.0f} s, got {text!r}"
        raise argparse.ArgumentTypeError(problem)
    return value


def moment(text: str) -> float:
    """Return a time span ago, or a moment in ISO 8601 [s since the epoch]."""
    if (match := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", text)) is not None:
        unit = {"s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]]
        return max(0.0, time.time() - float(match[1]) * unit)
    from datetime import datetime  # takes longer to import than most calls take

    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"expected 90s, 10m, 2h, 3d, or a time such as 2026-11-27T14:00, "
            f"got {text!r}"
        ) from None
