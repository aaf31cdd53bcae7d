"""Test that a reload takes over or changes nothing, by the verb and by SIGHUP."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kits.serving import Serving, is_alive, open_serving

SERVICE = """
import sys
import trio
import helper
from trio_supervisor import Application, Command, Service, SyncWorker, Worker

VERSION = "one"

async def web(worker: Worker) -> None:
    await worker.status(f"{VERSION} {worker.generation}")
    await worker.ready()
    await worker.stopping.wait()

def steady(worker: SyncWorker) -> None:
    worker.ready()
    worker.stopping.wait()

application = Application(
    services=[
        Service("web", web, count=2),
        Service("steady", steady, backend="sync"),
        Command("sleeper", ["sleep", "1000"]),
    ],
)
"""
HELPER = "WORD = 1\n"


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """Serve for all tests; each one reloads and restores the service file."""
    with open_serving(SERVICE, files={"helper.py": HELPER}) as serving:
        yield serving


def generation(serving: Serving, name: str) -> int:
    number: int = serving.worker(name)["generation"]
    return number


def gone(process_ids: Iterator[int] | list[int]) -> bool:
    return not any(is_alive(process_id) for process_id in process_ids)


def test_reload_starts_new_before_stopping_old(serving: Serving) -> None:
    """It works even if the new file has the same size and time of modification."""
    before = serving.pids()
    since = serving.mark()
    stat = os.stat(serving.directory / "service.py")
    serving.edit(SERVICE.replace('"one"', '"two"'))
    os.utime(serving.directory / "service.py", ns=(stat.st_atime_ns, stat.st_mtime_ns))

    done = serving.cli("reload")

    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    assert lines[0].startswith("~ web: code ")
    assert lines[2] == "= sleeper (unchanged, kept)"
    assert last == "generation 2 took over"
    after = serving.pids()
    assert after.keys() == before.keys()
    assert after["sleeper.0"] == before["sleeper.0"]
    assert not {after[n] for n in ("web.0", "web.1", "steady.0")} & {*before.values()}
    assert gone([before["web.0"], before["web.1"], before["steady.0"]])
    assert serving.wait_worker("web.0", status="two 2")["reason"] == "reload"
    happened = [
        (event["event"], event["name"])
        for event in serving.select(since)
        if event.get("event") in ("ready", "stopping", "reloading", "reloaded")
        and event["name"] != "supervisor"
    ]
    first_stop = min(i for i, (what, _) in enumerate(happened) if what == "stopping")
    ready = {name for what, name in happened[:first_stop] if what == "ready"}
    assert happened[0] == ("reloading", "controller")
    assert ready == {"web.0", "web.1", "steady.0"}
    assert happened[-1] == ("reloaded", "controller")
    exits = serving.select(since, event="exited")
    assert all(event["is_planned"] and event["returncode"] == 0 for event in exits)
    stops = serving.select(since, event="stopping", name="web.0")
    assert [stop["cause"] for stop in stops] == ["reload"]
    assert stops[0]["message"].endswith("): reload: replaced by the new generation")


def test_reload_replaces_supervisor(serving: Serving) -> None:
    before = serving.when_ready()["supervisor"]["process_id"]
    since = serving.mark()

    assert serving.cli("reload").returncode == 0

    serving.wait_event(since=since, event="supervisor_connected")
    report = serving.when_ready()
    assert report["supervisor"]["process_id"] != before
    connected = {worker["service"]: worker["connected"] for worker in report["workers"]}
    assert connected == {"web": True, "steady": True, "sleeper": False}


def test_reload_dry_run_changes_nothing(serving: Serving) -> None:
    before, number = serving.pids(), generation(serving, "web.0")
    since = serving.mark()
    serving.edit(
        SERVICE.replace("web, count=2", "web, count=3, stop_timeout=4").replace(
            'Command("sleeper", ["sleep", "1000"])',
            'Command("other", ["sleep", "1000"])',
        )
    )

    shown = serving.cli("reload", "--dry-run")
    as_json = serving.cli("reload", "--dry-run", "--json")

    serving.edit(SERVICE)
    assert shown.returncode == 0
    web, steady, other, sleeper = shown.stdout.splitlines()
    assert web.startswith("~ web: count 2 -> 3; ")
    assert "stop_timeout 10.0 -> 4.0" in web
    assert steady.startswith(("~ steady", "= steady"))
    assert (other, sleeper) == ("+ other", "- sleeper")
    services = json.loads(as_json.stdout)["services"]
    assert [service["action"] for service in services][2:] == ["add", "remove"]
    assert serving.pids() == before
    assert generation(serving, "web.0") == number
    assert not serving.select(since, event="reloading")


def test_reload_changed_only_replaces_changed_services(serving: Serving) -> None:
    """An imported module counts as code of the service."""
    assert serving.cli("reload").returncode == 0
    before, number = serving.pids(), generation(serving, "web.0")

    same = serving.cli("reload", "--changed-only")
    kept = serving.pids()
    serving.edit(SERVICE.replace("web, count=2", "web, count=2, stop_timeout=8"))
    declared = serving.cli("reload", "--changed-only")
    serving.edit(SERVICE)
    assert serving.cli("reload", "--changed-only").returncode == 0
    after = serving.pids()
    serving.put("helper.py", "WORD = 'of another length'\n")
    imported = serving.cli("reload", "--changed-only")

    assert "= web (unchanged, kept)" in same.stdout
    assert kept == before
    assert "~ web: stop_timeout 10.0 -> 8.0" in declared.stdout or (
        "; stop_timeout 10.0 -> 8.0" in declared.stdout
    )
    assert after["sleeper.0"] == before["sleeper.0"]
    assert imported.stdout.startswith("~ web: code ")
    assert not {*serving.pids("web").values()} & {*after.values()}
    assert generation(serving, "web.0") > number


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param(
            SERVICE + "\nraise LookupError('no such table')\n",
            "LookupError: no such table",
            id="does not import",
        ),
        pytest.param(SERVICE + "\n(", "SyntaxError", id="no Python"),
        pytest.param(
            SERVICE.replace("web, count=2", "web, count=-1"),
            "count: expected",
            id="wrong declaration",
        ),
        pytest.param(
            SERVICE.replace("await worker.ready()", "sys.exit(7)"),
            "exited before it was ready: exit code 7",
            id="crashes at its start",
        ),
        pytest.param(
            SERVICE.replace("await worker.ready()", "return"),
            "of the new generation exited before it was ready: exit code 0",
            id="returns at its start",
        ),
        pytest.param(
            SERVICE.replace("await worker.ready()", "pass").replace(
                "web, count=2", "web, count=2, startup_timeout=0.5"
            ),
            "of the new generation failed: not ready after 0.5 s (startup_timeout)",
            id="does not become ready",
        ),
        pytest.param(
            SERVICE.replace(
                "Command(", 'Command("new", ["no-such-program"]), Command('
            ),
            "no-such-program",
            id="a command that does not exist",
        ),
    ],
)
def test_reload_failure_keeps_previous_generation(
    serving: Serving, source: str, reason: str
) -> None:
    before, number = serving.when_ready(), generation(serving, "web.0")
    since = serving.mark()
    serving.edit(source)

    failed = serving.cli("reload")

    serving.edit(SERVICE)
    assert failed.returncode == 1
    assert reason in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert reason in serving.wait_event(since=since, event="reload_failed")["problem"]
    after = serving.when_ready()
    pids = [
        {w["name"]: w["process_id"] for w in report["workers"]}
        for report in (before, after)
    ]
    assert len(pids[0]) == 4
    assert pids[0] == pids[1]
    assert after["supervisor"]["process_id"] == before["supervisor"]["process_id"]
    assert generation(serving, "web.0") == number
    assert not serving.select(since, event="reloaded")
    assert serving.cli("restart", "web.0").returncode == 0


def test_sighup_reloads_and_logs_failure(serving: Serving) -> None:
    before, number = serving.pids("web"), generation(serving, "web.0")
    since = serving.mark()

    serving.process.send_signal(signal.SIGHUP)
    reloaded = serving.wait_event(since=since, event="reloaded")
    serving.edit("raise LookupError('no')")
    serving.process.send_signal(signal.SIGHUP)
    failed = serving.wait_event(since=since, event="reload_failed")

    serving.edit(SERVICE)
    assert reloaded["generation"] == number + 1
    assert "LookupError: no" in failed["message"]
    assert failed["level"] == "error"
    assert not serving.select(since, event="supervisor_lost"), "it was replaced"
    serving.when_ready()
    assert not {*serving.pids("web").values()} & {*before.values()}
    assert generation(serving, "web.0") == number + 1


IMPATIENT = """
import os
import signal

if not os.path.exists("tmp/signalled"):
    open("tmp/signalled", "w").close()
    os.kill(os.getppid(), signal.SIGHUP)
    os.kill(os.getppid(), signal.SIGUSR1)
"""


def test_signals_during_first_import_are_not_lost() -> None:
    """Files changed since are read again, and no signal ends `serve`."""
    with open_serving(IMPATIENT + SERVICE, files={"helper.py": HELPER}) as serving:
        serving.wait_event(event="reloaded")
        assert generation(serving, "web.0") == 2
        assert len(serving.select(event="reloading")) == 1
        assert serving.terminate() == 0


GATE = """
import os
try:
    gate = open("tmp/gate")
except FileNotFoundError:
    pass
else:
    os.write(2, b"at the gate\\n")
    gate.read()
"""


@contextmanager
def slow_import(serving: Serving, source: str) -> Iterator[None]:
    """Keep a reload of *source* running while the block is open."""
    gate = serving.directory / "tmp" / "gate"
    os.mkfifo(gate)
    ours = os.open(gate, os.O_RDWR)
    try:
        serving.edit(GATE + source)
        since = len(serving.lines)
        serving.process.send_signal(signal.SIGHUP)
        serving.wait_line("at the gate", since=since)
        yield
    finally:
        gate.unlink()
        os.close(ours)


def test_sighup_during_reload_is_not_lost(serving: Serving) -> None:
    """The file as written before the signal is served in the end."""
    since = serving.mark()
    with slow_import(serving, SERVICE):
        # In order: the first reload imports another file than the second one.
        serving.edit(SERVICE.replace('"one"', '"six"'))
        serving.process.send_signal(signal.SIGHUP)
        # The signal was handled: signals are handled before this answer.
        assert serving.cli("logs", "--tail", "1").returncode == 0

    serving.wait_events(2, since=since, event="reloaded")
    serving.when_ready()
    serving.edit(SERVICE)
    assert serving.worker("web.0")["status"].startswith("six ")


def test_verbs_during_reload_are_refused(serving: Serving) -> None:
    since = serving.mark()
    with slow_import(serving, SERVICE):
        answers = [
            serving.cli("reload"),
            serving.cli("scale", "web=3"),
            serving.cli("stop", "web"),
        ]
    serving.wait_event(since=since, event="reloaded")

    for answer in answers:
        assert answer.returncode == 1
        assert "a reload is in progress" in answer.stderr
    serving.wait_worker("web.0", state="ready")


SWAP = """
import sys
import trio
from trio_supervisor import Application, Command, Service, Worker

async def alone(worker: Worker) -> None:
    # As one that holds a lock, or a port: two at once would be a crash.
    lock = open("tmp/lock", "a")
    import fcntl
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    FAIL
    await worker.status("alone, generation %d" % worker.generation)
    await worker.ready()
    await worker.stopping.wait()

application = Application(
    services=[
        Service("alone", alone, overlap=False),
        Command("web", ["sleep", "1000"], depends_on={"alone": "ready"}),
        Command("program", ["sleep", "1001"]),
    ],
)
"""


def test_reload_without_overlap_swaps_and_rolls_back() -> None:
    with open_serving(SWAP.replace("FAIL", "pass")) as serving:
        before = serving.pids()
        since = serving.mark()

        assert serving.cli("reload").returncode == 0

        swapped = [
            (event["event"], event.get("cause"))
            for event in serving.select(since, name="alone.0")
            if event.get("event") in ("stopping", "exited", "ready")
        ]
        assert swapped == [("stopping", "reload"), ("exited", None), ("ready", None)]
        after = serving.pids()
        assert after["alone.0"] != before["alone.0"]
        assert after["web.0"] == before["web.0"]
        assert not serving.select(since, event="exited", is_planned=False)

        since = serving.mark()
        serving.edit(SWAP.replace("FAIL", "sys.exit(9)").replace('"1001"', '"1002"'))
        failed = serving.cli("reload")

        assert failed.returncode == 1
        assert "exit code 9" in failed.stderr
        back = serving.wait_event(since=since, event="ready", name="alone.0")
        report = serving.when_ready()
        assert [w["state"] for w in report["workers"]] == ["ready"] * 3
        worker = serving.wait_worker("alone.0", process_id=back["process_id"])
        assert worker["status"].startswith("alone, generation 2")
        assert worker["generation"] == 2
        # Of the program, too, only one process may run at a time.
        program = serving.wait_event(since=since, event="started", name="program.0")
        words = Path(f"/proc/{serving.pids()['program.0']}/cmdline").read_bytes()
        assert words == b"sleep\0" + b"1001\0", program

        since = serving.mark()
        serving.edit(SWAP.replace("FAIL", "pass").replace('"1001"', '"1002"'))
        assert serving.cli("reload").returncode == 0
        changed = serving.pids()["program.0"]
        assert changed != after["program.0"]
        words = Path(f"/proc/{changed}/cmdline").read_bytes()
        assert words == b"sleep\0" + b"1002\0"
        assert serving.terminate() == 0


def test_reload_keeps_scaled_count_unless_declaration_changes(
    serving: Serving,
) -> None:
    assert serving.cli("scale", "web=3").returncode == 0
    assert serving.cli("reload").returncode == 0
    assert len(serving.pids("web")) == 3
    serving.edit(SERVICE.replace("web, count=2", "web, count=1"))
    assert serving.cli("reload").returncode == 0
    assert len(serving.pids("web")) == 1
    serving.edit(SERVICE)
    assert serving.cli("reload").returncode == 0
    assert len(serving.pids("web")) == 2


def test_reload_adds_and_removes_services(serving: Serving) -> None:
    serving.edit(
        SERVICE.replace('Command("sleeper"', 'Command("newcomer"').replace(
            '["sleep", "1000"]', '["sleep", "1000"], depends_on={"web": "ready"}'
        )
    )
    since = serving.mark()

    assert serving.cli("reload").returncode == 0

    assert "sleeper.0" not in serving.pids()
    assert serving.worker("newcomer.0")["state"] == "ready"
    exited = serving.wait_event(since=since, event="exited", name="sleeper.0")
    assert exited["is_planned"]
    serving.edit(SERVICE)
    assert serving.cli("reload").returncode == 0


def test_crash_after_many_reloads_is_repaired(serving: Serving) -> None:
    """The shutdown is as clean as without reloads."""
    since = serving.mark()
    serving.kill("web.1")
    exited = serving.wait_event(since=since, event="exited", name="web.1")
    serving.wait_event(since=since, event="ready", name="web.1")
    assert not exited["is_planned"]
    serving.when_ready()
    assert serving.terminate() == 0
    assert serving.process_ids() == []
    assert serving.files() - {"helper.py"} == set()


def test_reload_that_never_ends_can_be_aborted() -> None:
    """Its workers never become ready, and there is no startup_timeout."""
    never = SWAP.replace("await worker.ready()", "").replace(
        "overlap=False", "overlap=False, startup_timeout=None"
    )
    with open_serving(SWAP.replace("FAIL", "pass")) as serving:
        none = serving.cli("reload", "--abort")
        since = serving.mark()
        serving.edit(never.replace("FAIL", "pass"))
        serving.process.send_signal(signal.SIGHUP)
        serving.wait_event(since=since, event="started", name="alone.0")

        done = serving.cli("reload", "--abort")

        assert (none.returncode, done.returncode) == (1, 0)
        assert "no reload is in progress" in none.stderr
        assert done.stdout == "the reload was aborted\n"
        failed = serving.wait_event(since=since, event="reload_failed")
        assert failed["problem"] == "aborted"
        assert generation(serving, "alone.0") == 1
        assert serving.worker("alone.0")["state"] == "ready"
        assert serving.cli("reload", "--abort", "--dry-run").returncode == 2
