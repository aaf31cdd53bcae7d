"""Whether the application has come to its end by itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, assert_never

AutoShutdown: TypeAlias = Literal["any", "all"]
"""OTP's ``any_significant`` and ``all_significant``."""


def is_over(mode: AutoShutdown, significant: Mapping[str, bool]) -> bool:
    """Return whether the application is to end.

    Args:
        mode: Whether the end of any significant service ends it, or of all.
        significant: Of each significant service, whether all of its workers ended by
            themselves and for good. One that somebody stopped has not.
    """
    match mode:
        case "any":
            return any(significant.values())
        case "all":
            return bool(significant) and all(significant.values())
    assert_never(mode)
