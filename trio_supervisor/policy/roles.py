"""What a worker's connection may ask of the supervisor. Pure."""

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
"""What ``may`` of a service can name, and which operations that permits."""
_NEEDED: Final = {do: name for name, allowed in GRANTS.items() for do in allowed}


def missing_grant(
    do: str, may: Collection[str], *, is_reload: bool = False
) -> str | None:
    """Return the grant that a worker lacks for the operation *do*; None: none.

    Args:
        is_reload: Whether the call asks for a reload under another name, as a Ruby
            client does.
    """
    needed = "reload" if is_reload else _NEEDED.get(do)
    return needed if needed is not None and needed not in may else None
