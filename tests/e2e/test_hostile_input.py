"""Test what the sender of hostile input gets, and that other clients are served."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.hostile_input import INPUTS, HostileInput
from tests.kits.serving import PATIENCE, Serving, open_serving

SERVICE = """
import trio
from trio_supervisor import Application, Service

async def hang():
    await trio.sleep_forever()

async def web(worker):
    worker.handle("hang", hang)
    await worker.ready()
    await worker.stopping.wait()

application = Application([Service("web", web)])
"""
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with open_serving(SERVICE) as serving:
        yield serving


@pytest.mark.parametrize("hostile", INPUTS, ids=lambda each: each.kind)
def test_hostile_input_gets_a_typed_error(
    serving: Serving, hostile: HostileInput
) -> None:
    before = serving.worker("web.0")["process_id"]
    with socket.socket(socket.AF_UNIX) as sender:
        sender.settimeout(PATIENCE)
        sender.connect(str(serving.socket))
        sender.sendall(hostile.data)
        with sender.makefile("rb") as answers:
            classes = [
                json.loads(next(answers)).get("error", {}).get("class", "")
                for _ in hostile.answers
            ]
            assert tuple(classes) == hostile.answers
            if hostile.is_closed:
                assert answers.read() == b""
            serving.call("ping")
    assert serving.worker("web.0")["process_id"] == before
    assert not [line for line in serving.lines if "Traceback" in line]


def test_silent_connections_hinder_nobody(serving: Serving) -> None:
    """They are held by another process, which is then killed."""
    holder = """
import socket, sys, time
kept = []
for _ in range(400):
    kept.append(socket.socket(socket.AF_UNIX))
    kept[-1].connect(sys.argv[1])
print("there", flush=True)
time.sleep(1000)
"""
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(serving.socket)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        serving.call("ping")
        process.kill()
    serving.call("ping")


def test_documentation_lists_each_kind() -> None:
    text = (DOCS / "reliability.md").read_text(encoding="utf-8")
    _, _, table = text.partition("| input | its sender gets |")
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|", table, re.MULTILINE))
    for hostile in INPUTS:
        shown = rows[hostile.kind]
        for class_ in filter(None, hostile.answers):
            assert f"`{class_}`" in shown
        assert hostile.is_closed == ("closed" in shown)
