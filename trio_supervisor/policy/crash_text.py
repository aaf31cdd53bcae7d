"""Describe in one line why a worker is not ready, and what happens next. Pure."""

from __future__ import annotations

import re
from typing import Final

# Log lines and table cells are read by people.
_LINE_LIMIT: Final = 200
# ECMA-48: CSI with its parameters, OSC up to its terminator, and shorter sequences.
# Some tools colour their output even if it is not a terminal.
_ESCAPE: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"
)
# What Node.js prints below the stack: its version, and the end of what an error has.
_BELOW_FRAMES: Final = re.compile(r"Node\.js v\d+\.\d+\.\d+\S*|\}")
_NODE_ERROR: Final = re.compile(r"(?:Uncaught )?(?:\w*Error\b|throw )")
_FRAME: Final = re.compile(
    r"at .+\)(?: \{)?$|at (?:async )?\S+:\d+(?: \{)?$|\.\.\. \d+ more$"
    r"|from \S+:\d+:in "
)

FAILED_TO_START: Final = "failed to start"
"""The reason of a restart after a process that could not be started."""
# Reasons that name the exit, which callers of `describe_crashes` have as last_exit.
_EXITED: Final = ("exited with code ", "killed by ")
_PARENTHESES: Final = re.compile(r" \(([^()]*)\)")


def last_output_line(lines: tuple[str, ...] | list[str]) -> str:
    """Return the last of *lines* that says something, without escapes and shortened.

    Frames of a stack, which Node.js, Java and Ruby print below the error, do not.
    """
    clean = [text for line in lines if (text := _clean(line))]
    if not clean:
        return ""
    found = clean[-1]
    if _BELOW_FRAMES.fullmatch(found):
        found = _above_frames(clean) or found
    elif _FRAME.match(found):
        others = (each for each in reversed(clean) if not _FRAME.match(each))
        found = next(others, found)
    return found if len(found) <= _LINE_LIMIT else f"{found[: _LINE_LIMIT - 3]}..."


def _above_frames(lines: list[str]) -> str:
    """Return the line above the last frames of a stack in *lines*; empty: none."""
    is_in_stack = False
    for line in reversed(lines):
        is_frame = _FRAME.match(line) is not None
        if is_in_stack and not is_frame:
            return line
        is_in_stack |= is_frame
    return next(filter(_NODE_ERROR.match, reversed(lines)), "")


def _clean(line: str) -> str:
    plain = _ESCAPE.sub("", line)
    return " ".join("".join(c if c.isprintable() else " " for c in plain).split())


def in_a_row(crashes: int) -> str:
    """Return ``", 3 times in a row"``; empty for one crash."""
    return f", {crashes} times in a row" if crashes > 1 else ""


def parenthesized(text: str) -> str:
    """Return *text* in parentheses; a comma replaces those that it contains.

    Example:
        ``(no heartbeat for 30 s, health_check_timeout)``
    """
    flat = _PARENTHESES.sub(r", \1", text)
    return f"({flat})"


def describe_delay(seconds: float) -> str:
    """Return a delay such as ``312 ms`` or ``12.3 s``."""
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
    """Return in one line how a worker exited, how often, and when it is restarted.

    Args:
        crashes: Number of crashes in a row.
        last_exit: How the process exited, such as ``exit code 1``.
        reason: Why it is restarted; more precise than *last_exit* if the worker did
            not exit on its own.
        problem: Known cause of the crashes, shown instead of *last_line*.
        last_line: Last line of the worker's output.
        next_try_in: Time until the next start [s].
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
