"""Find the package's own source files. Standard library only."""

from __future__ import annotations

import os
from typing import Final

PACKAGE: Final = os.path.dirname(__file__)
"""Directory of the package, as frames and modules name it."""
PREFIX: Final = os.path.join(PACKAGE, "")
"""What the paths of the package's own source files begin with."""
