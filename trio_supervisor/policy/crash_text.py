"""What is said of a worker that is not ready: why, and what follows. Pure."""

from __future__ import annotations

import re
from typing import Final

# A person reads it in a line of a log or of a table.
_LINE_LIMIT: Final = 200
# ECMA-48: CSI with its parameters, OSC up to its terminator, and shorter ones. Tools
# colour what they print to a terminal, and some of them whatever they print to.
_ESCAPE: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"
)

FAILED_TO_START: Final = "failed to start"
"""The reason of a restart after a process that could not be started."""
# Reasons that name the exit, which callers of `describe_crashes` have as last_exit.
_EXITED: Final = ("exited with code ", "killed by ")


def last_words(lines: tuple[str, ...] | list[str]) -> str:
    """Return the last of *lines* with anything on it, shortened to one line of text."""
    for line in reversed(lines):
        if text := " ".join(
            "".join(
                c if c.isprintable() else " " for c in _ESCAPE.sub("", line)
            ).split()
        ):
            return text if len(text) <= _LINE_LIMIT else f"{text[: _LINE_LIMIT - 3]}..."
    return ""


def in_a_row(crashes: int) -> str:
    """Return how often it ended, as a part of a sentence; empty for once."""
    return f", {crashes} times in a row" if crashes > 1 else ""


def describe_delay(seconds: float) -> str:
    """Return a delay as ``312 ms`` or ``12.3 s``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def describe_crashes(
    *,
    crashes: int,
    last_exit: str,
    reason: str = "",
    problem: str = "",
    last_line: str = "",
    next_try_in: float | None = None,
) -> str:
    """Return in one line how a worker ended, how often, and when it is tried again.

    Args:
        reason: Why it is restarted: says more than *last_exit* where it did not exit
            on its own.
        problem: What is known to keep it from running; is said in place of
            *last_line*.
        next_try_in: Time to the next try [s].
    """
    how = last_exit
    if reason == FAILED_TO_START:
        how = f"{reason}: {last_exit}"
    elif reason and not reason.startswith(_EXITED):
        how = reason
    parts = [f"{how}{in_a_row(crashes)}"]
    if next_try_in is not None:
        parts.append(f"next try in {describe_delay(next_try_in)}")
    if problem:
        parts.append(problem)
    elif last_line:
        parts.append(f"last line: {last_line}")
    return "; ".join(parts)
