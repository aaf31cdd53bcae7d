"""Fuzz some targets, each for some time; keep inputs that fail in the corpus."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.corpora import CORPUS
from tests.fuzz.targets import TARGETS

_LONGEST = 4096
"""Of an input [bytes]."""
_KEPT = 15
"""Inputs that a run adds to a corpus at most."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz; return 0 if nothing was found, and 1 if a target failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all")
    parser.add_argument(
        "--seconds", type=int, default=60, metavar="N", help="time for each target"
    )
    parser.add_argument(
        "--keep", action="store_true", help="add inputs that reach more code"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args(arguments)
    if options.inside:
        _run_inside(options.targets[0], [*options.targets[1:], *rest])
    if unknown := [name for name in options.targets if name not in TARGETS]:
        parser.error(
            f"no such target: {', '.join(unknown)}; known: {', '.join(TARGETS)}"
        )
    failed = [
        name
        for name in options.targets or TARGETS
        if not fuzz(name, options.seconds, keep=options.keep)
    ]
    print(f"failed: {', '.join(failed)}" if failed else "nothing found")
    return 1 if failed else 0


def fuzz(name: str, seconds: int, *, keep: bool) -> bool:
    """Fuzz one target; return whether it never failed.

    libFuzzer ends the process that fails, so each target has one of its own.
    """
    kept = CORPUS / name
    kept.mkdir(exist_ok=True)
    print(f"{name}: fuzzing for {seconds} s", flush=True)
    with tempfile.TemporaryDirectory() as found:
        done = _atheris(
            name,
            *(f"-max_total_time={seconds}", f"-max_len={_LONGEST}", "-timeout=20"),
            *(f"-artifact_prefix={kept}/", "-print_final_stats=1", found, str(kept)),
        )
        if keep:
            _keep(Path(found), kept)
    return done == 0


def _keep(found: Path, kept: Path) -> None:
    """Keep the newest inputs: these reach what is reached by few."""
    newest = sorted(found.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for path in newest[-_KEPT:]:
        shutil.copy(path, kept / path.name[:12])


def _atheris(name: str, *words: str) -> int:
    command = [sys.executable, "-m", "tests.fuzz", "--inside", name, *words]
    return subprocess.run(command, check=False).returncode


def _run_inside(name: str, words: list[str]) -> None:
    """Be the process that fuzzes; it does not return."""
    # Imported here: only this process needs it.
    import atheris

    atheris.instrument_all()
    atheris.Setup([name, *words], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
