"""Run ``python -m trio_supervisor.reference DOCS [--check]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trio_supervisor.reference.pages import outdated, write


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the generated pages, or check them; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m trio_supervisor.reference",
        description="Write the reference pages that are generated from the package.",
    )
    parser.add_argument("docs", type=Path, help="directory of the documentation")
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit 1 if a page is missing or out of date",
    )
    options = parser.parse_args(arguments)
    if not options.check:
        for path in write(options.docs):
            print(f"{path}: written")
        return 0
    stale = outdated(options.docs)
    for path in stale:
        print(f"{path}: out of date", file=sys.stderr)
    if stale:
        print("run: python -m trio_supervisor.reference docs", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
