"""Tell what the terminal behind a descriptor can show."""

from __future__ import annotations

import os


def has_escapes(descriptor: int) -> bool:
    """Return whether *descriptor* is a terminal that understands escape sequences."""
    return os.isatty(descriptor) and os.environ.get("TERM") != "dumb"


def has_colours(descriptor: int) -> bool:
    """Return whether *descriptor* is a terminal with colours: see no-color.org."""
    return has_escapes(descriptor) and not os.environ.get("NO_COLOR")
