"""Decide which operations a worker may ask the supervisor for. Pure."""

from __future__ import annotations

from collections.abc import Collection
from types import MappingProxyType
from typing import Final

GRANTS: Final = MappingProxyType(
    {
        "status": ("status", "workers"),
        "health": ("health",),
        "events": ("events",),
        "logs": ("logs",),
        "forward": ("forward",),
        "start": ("start",),
        "stop": ("stop",),
        "restart": ("restart",),
        "scale": ("scale",),
        "reload": ("reload", "abort_reload"),
        "shutdown": ("shutdown",),
    }
)
"""Values of the option ``may``, with the operations that each permits."""
_NEEDED: Final = {do: name for name, allowed in GRANTS.items() for do in allowed}


def missing_grant(
    do: str, may: Collection[str], *, is_reload: bool = False
) -> str | None:
    """Return the value that *may* lacks for the operation *do*; None: it is allowed.

    Args:
        may: The option ``may`` of the worker's service.
        is_reload: Whether the call is a reload under another name, as Ruby clients
            send it.
    """
    needed = "reload" if is_reload else _NEEDED.get(do)
    return needed if needed is not None and needed not in may else None
