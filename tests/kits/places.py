"""Directories of this checkout."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
KITS: Final = ROOT / "tests" / "kits"
EXAMPLES: Final = ROOT / "examples"
