"""Types of values on the command line, for argparse."""

from __future__ import annotations

import argparse
import math


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
