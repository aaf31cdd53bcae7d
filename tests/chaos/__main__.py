"""Run real chaos for some minutes."""

from __future__ import annotations

import argparse
import random
import time

from tests.chaos.rounds import run_rounds


def main() -> None:
    """Run rounds until the time is over; an error names the seed and what was done."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--minutes", type=float, default=5.0, metavar="M")
    parser.add_argument("--seed", type=int, default=None, metavar="N")
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    end = time.monotonic() + 60 * options.minutes
    run_rounds(seed, lambda _: time.monotonic() >= end)


if __name__ == "__main__":
    main()
