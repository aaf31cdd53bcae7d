"""What the doctor sees of a main thread without an event loop."""

from __future__ import annotations

import threading

from tests.kits.serving import short_directory
from tests.kits.worker import make_boot, open_ear
from trio_supervisor.diagnostics.tasks.main_loop import MainLoop
from trio_supervisor.worker.doctor.main_thread import sampling_main_thread
from trio_supervisor.worker.instance import SyncWorker
from trio_supervisor.worker.runtimes import SyncRuntime


def test_main_thread_that_checks_stopping_has_turned() -> None:
    """Two samplers at the same time see the same."""
    may_check, has_checked = threading.Event(), threading.Event()

    def target(worker: SyncWorker) -> None:
        may_check.wait()
        for _ in range(7):
            worker.stopping.is_set()
        has_checked.set()
        worker.stopping.wait()

    with short_directory() as directory, open_ear(directory) as ear:
        worker = SyncWorker._create(make_boot(directory), ear.notifier)
        stopping = worker._stopping
        thread = threading.Thread(target=SyncRuntime(worker, target).run)
        thread.start()
        main = MainLoop(ident=thread.ident)
        with (
            sampling_main_thread(main, lambda: stopping.checks) as one,
            sampling_main_thread(main, lambda: stopping.checks) as other,
        ):
            assert not one.facts(()).has_turned
            assert not other.facts(()).has_turned
            may_check.set()
            has_checked.wait()
            assert stopping.checks >= 7
            assert one.facts(()).has_turned
            assert other.facts(()).has_turned
        stopping._set()
        thread.join()


def test_main_thread_without_checks_has_not_turned() -> None:
    with sampling_main_thread(MainLoop(), lambda: 0) as sampler:
        assert not sampler.facts(()).has_turned
