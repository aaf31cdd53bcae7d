"""Run a soak for some minutes."""

from __future__ import annotations

import argparse
import random
import time

from tests.soak.rounds import run_soak


def main() -> None:
    """Run rounds until the time is over; an error names the figure that grows."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=60.0, metavar="M")
    parser.add_argument("--seed", type=int, default=None, metavar="N")
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    end = time.monotonic() + 60 * options.minutes
    run_soak(seed, lambda _: time.monotonic() >= end)


if __name__ == "__main__":
    main()
