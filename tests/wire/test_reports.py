"""Every report of this room goes over the wire and back as what it was."""

from __future__ import annotations

import orjson
import pytest

from trio_supervisor.diagnostics.descriptors.descriptor_counts import (
    count_by_kind,
    descriptor_growth,
)
from trio_supervisor.diagnostics.locks.locks import lock_report
from trio_supervisor.diagnostics.profile.formats import profile_report
from trio_supervisor.diagnostics.profile.garbage import GarbageProfiler
from trio_supervisor.diagnostics.profile.sampling import profile_for
from trio_supervisor.diagnostics.stacks.thread_stacks import thread_report
from trio_supervisor.diagnostics.tasks.loop_stalls import StallWatch
from trio_supervisor.diagnostics.tasks.main_loop import MainLoop, current_main_loop
from trio_supervisor.diagnostics.tasks.report import scheduler_report
from trio_supervisor.wire.codec import parse_result, to_fields


async def make_reports() -> list[object]:
    main, garbage, counts = (
        current_main_loop(),
        GarbageProfiler(),
        count_by_kind(),
    )
    watch = StallWatch(main, threshold=0.0, interval=0.0)
    watch.look()
    watch.look()
    garbage.start()
    return [
        thread_report(),
        thread_report(with_locals=True),
        scheduler_report(main),
        scheduler_report(MainLoop()),
        lock_report(),
        garbage.stop(),
        profile_report(profile_for(0.02, 0.001)),
        watch.report(),
        counts.report(),
        descriptor_growth(counts, count_by_kind()),
    ]


async def test_report_round_trip() -> None:
    for report in await make_reports():
        line = orjson.dumps(to_fields(report))
        assert parse_result(orjson.loads(line), type(report)) == report


async def test_report_depth_is_small() -> None:
    """The protocol allows 64 levels; these need six."""

    def depth(tree: object) -> int:
        match tree:
            case dict():
                return 1 + max(map(depth, tree.values()), default=0)
            case list() | tuple():
                return 1 + max(map(depth, tree), default=0)
        return 0

    assert max(depth(to_fields(report)) for report in await make_reports()) <= 6


if __name__ == "__main__":
    pytest.main([__file__])
