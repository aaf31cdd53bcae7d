"""Decide which operations a worker may ask the supervisor for. Pure."""

from __future__ import annotations

from collections.abc import Collection
from types import MappingProxyType
from typing import Final

from trio_supervisor.wire.protocol import OPERATIONS

_NEEDED: Final = {
    do: type_.spec.may for do, type_ in OPERATIONS.items() if type_.spec.may
}
GRANTS: Final = MappingProxyType(
    {
        grant: tuple(do for do, needed in _NEEDED.items() if needed == grant)
        for grant in dict.fromkeys(_NEEDED.values())
    }
)
"""Values of the option ``may``, with the operations that each permits."""


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
