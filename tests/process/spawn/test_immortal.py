"""Objects that are made immortal, in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    not (3, 12) <= sys.version_info[:2] <= (3, 13),
    reason="objects can be made immortal on CPython 3.12 and 3.13",
)

PROGRAM = """
import ctypes, gc, sys
from trio_supervisor.process.spawn.immortal import make_immortal

class Node:
    def __init__(self, other=None):
        self.other, self.name = other, "node" * 3

def pair(a, b=("default", 1.5)):
    return [a, b, "a constant of some length"]

tree = {"nodes": [Node(Node()) for _ in range(50)], "text": "x" * 100}
assert make_immortal() > 10_000
count = lambda item: ctypes.c_ssize_t.from_address(id(item)).value
"""


def run(program: str) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM + program], check=True)


def test_references_no_longer_change_the_count() -> None:
    run(
        """
kept = [tree, tree["nodes"][7].other, tree["text"], pair, pair.__code__.co_consts[1],
        pair.__defaults__, Node, Node.__init__]
before = list(map(count, kept))
more = [kept * 5 for _ in range(100)]
assert set(before) == {0xFFFF_FFFF}, before
assert list(map(count, kept)) == before
del more, kept
assert count(tree) == 0xFFFF_FFFF
"""
    )


def test_the_program_goes_on_as_before() -> None:
    run(
        """
gc.freeze()
tree["nodes"].append(Node())
del tree["nodes"][:10], tree["text"]
assert len(tree["nodes"]) == 41
assert pair(3)[:2] == [3, ("default", 1.5)]
Node.added = 5
assert tree["nodes"][-1].added == 5
gc.unfreeze()
gc.collect()
made = [Node(Node()) for _ in range(1000)]
assert count(made[3]) < 100
del made
gc.collect()
import json, decimal, asyncio
assert json.loads(json.dumps({"a": [1.5, None]})) == {"a": [1.5, None]}
assert asyncio.run(asyncio.sleep(0, "done")) == "done"
"""
    )


def test_an_unknown_layout_is_refused() -> None:
    run(
        """
from trio_supervisor.process.spawn import immortal
immortal._COUNT = 0x3FFF_FFFF
try:
    make_immortal()
except RuntimeError as exc:
    assert "None has another reference count" in str(exc)
else:
    raise AssertionError
"""
    )
