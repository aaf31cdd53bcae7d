"""Check that each planted bug, or those that are named, makes a test fail."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from tests.kits.mutations import all_mutations, run_mutations


def main(arguments: Sequence[str] | None = None) -> int:
    """Run mutations; return 0 if all are caught, 1 if not, 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="names of mutations (default: all)"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="mutations run at the same time (default: %(default)s)",
    )
    parsed = parser.parse_args(arguments)
    known = {mutation.name: mutation for mutation in all_mutations()}
    if unknown := [name for name in parsed.names if name not in known]:
        parser.error(f"no such mutation: {', '.join(unknown)}")
    return run_mutations([known[name] for name in parsed.names or known], parsed.jobs)


if __name__ == "__main__":
    sys.exit(main())
