"""Test the verdicts of ``doctor`` on real workers that cannot answer."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kits.diagnosed import data, open_diagnosed
from tests.kits.serving import PATIENCE, Serving


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_diagnosed() as found:
        yield found


def diagnosis(serving: Serving, name: str) -> Any:
    """Return the findings of the doctor, after checking that the text has the same."""
    words = ("doctor", name, "--duration", "1")
    done = serving.cli(*words)
    assert (done.returncode, done.stderr) == (1, "")
    told = serving.cli(*words, "--json")
    assert (told.returncode, told.stderr) == (1, "")
    report = json.loads(told.stdout)
    (finding,) = report["findings"]
    assert finding["title"] in done.stdout
    assert (finding["severity"], finding["certainty"]) == ("standstill", "sure")
    return report


def test_doctor_stopped_worker_is_reported(serving: Serving) -> None:
    """No call waits for a stopped worker."""
    process_id = serving.worker("plain.1")["process_id"]
    os.kill(process_id, signal.SIGSTOP)
    try:
        report = diagnosis(serving, "plain.1")
        assert (report["way"], report["findings"][0]["kind"]) == ("kernel", "stopped")
        assert f"kill -CONT {process_id}" in report["findings"][0]["advice"]
        done = serving.cli("profile", "plain.1", "--duration", "1")
        assert done.returncode == 1
        assert "did not answer 'profile' within" in done.stderr
        assert "s ago; it is stopped by a signal such as SIGSTOP" in done.stderr
    finally:
        os.kill(process_id, signal.SIGCONT)


def test_doctor_unconnected_worker_names_line(
    serving: Serving,
) -> None:
    """It has run C code since it was ready, so its agent could never connect."""
    report = diagnosis(serving, "early.0")
    assert (report["way"], report["findings"][0]["kind"]) == ("memory", "stuck")
    assert "in hold: ctypes.PyDLL(None).read(" in report["findings"][0]["title"]


def test_doctor_waits_for_slow_agent(serving: Serving) -> None:
    """The agent answers pings during that time."""
    answer = data(serving, "call", "obeys", "nap", "seconds=6")
    assert answer["data"] == "had a nap"


def test_doctor_gil_holder_names_line(serving: Serving) -> None:
    """No caller waits for a call that cannot be answered."""
    done = serving.cli("call", "obeys", "hold", "--timeout", str(PATIENCE))
    assert done.returncode == 1
    assert "obeys.0" in done.stderr
    assert "C code called at " in done.stderr
    assert " holds the GIL" in done.stderr
    report = diagnosis(serving, "obeys.0")
    assert (report["way"], report["findings"][0]["kind"]) == ("memory", "stuck")
    assert "in hold: ctypes.PyDLL(None).read(" in report["findings"][0]["title"]
    assert report["findings"][0]["evidence"]
