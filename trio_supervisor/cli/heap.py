"""Summarize a heap dump of a worker, or compare two or three."""

from __future__ import annotations

from argparse import Namespace

from trio_supervisor.cli.output import print_json


def run_heap(arguments: Namespace) -> None:
    """Print the summary of one dump, or the comparison of several."""
    from trio_supervisor.diagnostics.heap.heap_compare import (
        compare_heaps,
        summarize_heap,
    )
    from trio_supervisor.wire.codec import to_fields

    files = arguments.files
    report = to_fields(
        summarize_heap(files[0]) if len(files) == 1 else compare_heaps(files)
    )
    if arguments.json:
        print_json(report)
    else:
        print(str(report["data"]).rstrip())
