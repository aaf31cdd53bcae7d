"""Keep the hard resource limits of a process while an import lowers them.

A hard limit cannot be raised again without privileges, and a fork server needs files,
memory and CPU time long after the import. During an import, `resource` lowers only the
soft limit and reports the hard limit as lowered; each worker gets both: see
`import_effects`.
"""

from __future__ import annotations

import functools
import posix
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

_SET: Final = resource.setrlimit
_GET: Final = resource.getrlimit


@contextmanager
def keep_hard_limits() -> Iterator[Mapping[int, int]]:
    """Keep the hard limits of this process within the block.

    Yields:
        The hard limits that the block has requested and that were not set.
    """
    wanted: dict[int, int] = {}
    process_id = posix.getpid()
    is_on = True

    def is_kept(of_process: int = 0) -> bool:
        here = posix.getpid()
        return is_on and here == process_id and of_process in (0, here)

    @functools.wraps(resource.setrlimit)
    def setrlimit(limit: Any, limits: Any, /) -> None:
        if not is_kept():
            return _SET(limit, limits)
        soft, hard = limits
        _, real = _GET(limit)
        if _is_below(hard, wanted.get(limit, real)) and not _is_below(hard, soft):
            _SET(limit, (soft, real))
            wanted[limit] = hard
        elif limit in wanted and hard == wanted[limit] and not _is_below(hard, soft):
            _SET(limit, (soft, real))
        elif limit in wanted and not _is_privileged():
            reason = "current limit exceeds maximum limit"
            if not _is_below(hard, soft):
                reason = "not allowed to raise maximum limit"
            raise ValueError(reason)
        else:
            _SET(limit, limits)
            wanted.pop(limit, None)
        return None

    @functools.wraps(resource.getrlimit)
    def getrlimit(limit: Any, /) -> tuple[int, int]:
        soft, hard = _GET(limit)
        return soft, wanted.get(limit, hard) if is_kept() else hard

    original = getattr(resource, "prlimit", None)  # Linux only

    def prlimit(pid: Any, limit: Any, *limits: Any) -> Any:
        assert original is not None
        if not is_kept(pid):
            return original(pid, limit, *limits)
        before = getrlimit(limit)
        if limits:
            setrlimit(limit, *limits)
        return before

    replaced = {"setrlimit": setrlimit, "getrlimit": getrlimit}
    if original is not None:
        replaced["prlimit"] = functools.wraps(original)(prlimit)
    try:
        with _replaced(replaced):
            yield wanted
    finally:
        is_on = False


@contextmanager
def _replaced(functions: Mapping[str, Any]) -> Iterator[None]:
    """Replace functions of `resource` within the block, by name."""
    originals = {name: getattr(resource, name) for name in functions}
    for name, function in functions.items():
        setattr(resource, name, function)
    try:
        yield
    finally:
        for name, function in functions.items():
            if getattr(resource, name) is function:
                setattr(resource, name, originals[name])


def _is_below(first: int, second: int) -> bool:
    if second == resource.RLIM_INFINITY:
        return first != resource.RLIM_INFINITY
    return first != resource.RLIM_INFINITY and first < second


def _is_privileged() -> bool:
    return posix.geteuid() == 0
