"""Remember which configuration files this process has read.

Apart from the module that reads them: most applications have none.
"""

from __future__ import annotations

from typing import Final

read: Final[set[str]] = set()
"""Absolute paths."""
