"""Test entries for journald."""

from __future__ import annotations

from tests.kits.log_services import fields_of
from tests.kits.output import block
from trio_supervisor.process.output.blocks import Block
from trio_supervisor.process.output.journal import journal_notice, render_journal
from trio_supervisor.process.output.records import records_of


def entries(rendered: Block) -> list[dict[str, str]]:
    items = render_journal(rendered)
    return [fields_of(bytes(r)) for item in items for r, _ in records_of(item)]


def test_render_journal_has_fields_of_worker() -> None:
    (first, second) = entries(block(b"listening\n<3>oops \xe9\n", stream="stderr"))
    assert first == {
        "SYSLOG_IDENTIFIER": "worker.0",
        "SYSLOG_PID": "4711",
        "SYSLOG_FACILITY": "3",
        "TRIO_SUPERVISOR_WORKER": "worker.0",
        "TRIO_SUPERVISOR_SERVICE": "worker",
        "TRIO_SUPERVISOR_GENERATION": "2",
        "TRIO_SUPERVISOR_INCARNATION": "3",
        "TRIO_SUPERVISOR_STREAM": "stderr",
        "PRIORITY": "6",
        "MESSAGE": "listening",
    }
    assert (second["PRIORITY"], second["MESSAGE"]) == ("3", "oops \\xe9")


def test_render_journal_marks_cut_lines_and_counts_dropped_ones() -> None:
    (entry,) = entries(block(b"half", is_cut=True))
    assert entry["TRIO_SUPERVISOR_TRUNCATED"] == "1"
    ((record, _),) = records_of(journal_notice(3))
    assert fields_of(bytes(record)) == {
        "SYSLOG_IDENTIFIER": "trio_supervisor",
        "SYSLOG_FACILITY": "3",
        "PRIORITY": "4",
        "MESSAGE": "3 lines dropped",
    }
