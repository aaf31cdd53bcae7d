"""Where inputs are kept, by target."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).with_name("corpus")


def kept_in(target: str) -> list[Path]:
    """Return the files with the inputs that are kept for *target*."""
    return sorted(path for path in (CORPUS / target).glob("*") if path.is_file())
