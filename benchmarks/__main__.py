"""Run benchmarks: ``python -m benchmarks [NAME...]``."""

from __future__ import annotations

import argparse
import compileall
import importlib
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import trio

import trio_supervisor
from benchmarks.frame import (
    Frame,
    Options,
    describe_machine,
    format_comparison,
    format_table,
    write_results,
)

ENTRIES: Final = (
    "round_trip",
    "cli_call",
    "crash_to_ready",
    "supervisor_reregister",
    "start_stop",
    "idle",
    "memory_tick",
    "process_tick",
    "metrics",
    "scrape",
    "pump",
    "peers",
)
ON_REQUEST: Final = ("growth", "diagnostics", "hostile", "web")
"""Run only if named."""
_QUICK_REPEATS: Final = 2


def main(words: Sequence[str] | None = None) -> int:
    """Run the requested benchmarks; return 0, whether or not targets were reached."""
    arguments = _parse(words)
    options = Options(
        repeats=arguments.repeats or (_QUICK_REPEATS if arguments.quick else 30),
        is_quick=arguments.quick,
    )
    if sys.platform != "linux":
        print("The benchmarks read /proc and need Linux.", file=sys.stderr)
        return 2
    before = json.loads(arguments.compare.read_text()) if arguments.compare else None
    started = datetime.now(UTC).isoformat(timespec="seconds")
    _compile()
    frame = Frame(options)
    try:
        trio.run(_run, frame, arguments.names or ENTRIES)
    except KeyboardInterrupt:
        print("interrupted; the results so far follow", file=sys.stderr)
    machine = describe_machine()
    print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, "
        f"Python {machine['python']}, trio {machine['packages']['trio']}; "
        f"{options.repeats} repeats"
    )
    print(format_table(frame.rows), end="")
    for name, why in frame.skipped.items():
        print(f"{name}: skipped: {why}")
    if arguments.json:
        write_results(arguments.json, frame, started)
    if before is not None:
        print(format_comparison(frame.rows, before), end="")
    return 0


def _compile() -> None:
    """Compile the package to bytecode, as an installation does.

    A fresh clone has no bytecode, and PYTHONDONTWRITEBYTECODE keeps it so: each process
    would then compile the package when it starts.
    """
    directory = os.path.dirname(trio_supervisor.__file__)
    compileall.compile_dir(directory, quiet=1)


async def _run(frame: Frame, names: Sequence[str]) -> None:
    for name in names:
        frame.entry = name
        await importlib.import_module(f"benchmarks.{name}").run(frame)


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"any of: {', '.join((*ENTRIES, *ON_REQUEST))}",
    )
    parser.add_argument("--repeats", type=_positive, help="of each entry; default: 30")
    parser.add_argument("--quick", action="store_true", help="run a smoke test")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write results")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="earlier results")
    arguments = parser.parse_args(words)
    if unknown := set(arguments.names) - {*ENTRIES, *ON_REQUEST}:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    return arguments


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
