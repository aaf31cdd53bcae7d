"""Test messages of syslog."""

from __future__ import annotations

import os
import re
import time

import pytest

from tests.kits.output import WORKER, block
from trio_supervisor.process.output.blocks import Block, Origin
from trio_supervisor.process.output.records import records_of
from trio_supervisor.process.output.syslog import syslog_notice, syslog_renderer


def messages(rendered: Block, *, is_local: bool) -> list[str]:
    items = syslog_renderer(is_local=is_local)(rendered)
    return [bytes(r).decode() for item in items for r, _ in records_of(item)]


def test_local_message_has_form_of_syslog_3() -> None:
    moment = time.mktime((2024, 3, 5, 7, 8, 9, 0, 0, -1))
    found = messages(block(b"ready\n<3>oops\n", time=moment), is_local=True)
    assert found == [
        "<30>Mar  5 07:08:09 worker.0[4711]: ready",
        "<27>Mar  5 07:08:09 worker.0[4711]: oops",
    ]


def test_network_message_has_form_of_rfc_5424(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "näh me")
    (found,) = messages(block("<2>héllo\n".encode(), time=1.5), is_local=False)
    assert found == (
        "<26>1 1970-01-01T00:00:01.500Z nhme worker.0 4711 stdout "
        '[trio_supervisor@32473 worker="worker.0" service="worker" generation="2" '
        'incarnation="3"] héllo'
    )


def test_network_message_cuts_long_name() -> None:
    origin = Origin(name=60 * "a" + ".0", process_id=1, generation=1, incarnation=1)
    (found,) = messages(block(b"x\n", origin=origin), is_local=False)
    assert found.split()[3] == 48 * "a"
    assert f'worker="{origin.name}"' in found


@pytest.mark.parametrize("is_local", [True, False])
def test_notice_is_a_warning(is_local: bool) -> None:
    ((record, _),) = records_of(syslog_notice(is_local=is_local)(2))
    text = bytes(record).decode()
    assert re.match(r"<28>1 " if not is_local else r"<28>[A-Z]", text)
    assert "trio_supervisor" in text
    assert str(os.getpid()) in text
    assert text.endswith(" 2 lines dropped")
    assert WORKER.name not in text
