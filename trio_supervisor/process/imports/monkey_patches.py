"""Reject an application whose import patches the standard library under trio."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType

from trio_supervisor.errors import PlatformError


def check_not_patched(where: str) -> None:
    """Check that the import of *where* has not patched sockets and selectors.

    Raises:
        PlatformError: gevent, eventlet or a similar library has patched them.
    """
    if (culprit := _culprit(sys.modules, select.select)) is None:
        return
    raise PlatformError(
        f"{where}: the import called {culprit}, which replaces sockets, threads and "
        f"selectors of the standard library; trio and the worker's agent need the "
        f"originals. Declare the program as a Command instead, or remove the patch"
    )


def _culprit(
    modules: Mapping[str, object], select_function: Callable[..., object]
) -> str | None:
    """Return the name of the call that has patched this process; None: no patch."""
    # Sources: gevent/monkey, `saved`; eventlet/patcher.py, `already_patched`.
    if getattr(modules.get("gevent.monkey"), "saved", None):
        return "gevent.monkey.patch_all (or a part of it)"
    if getattr(modules.get("eventlet.patcher"), "already_patched", None):
        return "eventlet.monkey_patch"
    if not isinstance(select_function, BuiltinFunctionType):
        module = getattr(select_function, "__module__", None) or "an unknown module"
        return f"code of {module} that patches select.select"
    return None
