"""Which source files are the application's own: not installed, and not ours."""

from __future__ import annotations

import site
import sys
import sysconfig
from pathlib import Path
from typing import Final

_INSTALLED: Final = tuple(
    str(Path(path).resolve())
    for path in {
        *(sysconfig.get_paths().values()),
        *site.getsitepackages(),
        site.getusersitepackages(),
    }
    if path not in (sys.prefix, sys.exec_prefix)
)
_OWN: Final = str(Path(__file__).resolve().parents[1])


def is_own(path: Path) -> bool:
    """Return whether the source at *path*, resolved, is the application's own."""
    return not any(path.is_relative_to(other) for other in (*_INSTALLED, _OWN))
