"""Measure how long a ping waits while another client sends hostile input."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Final

import trio

from benchmarks.clock import now
from benchmarks.frame import Frame
from benchmarks.serving import open_served
from trio_supervisor import open_client

MIB: Final = 1 << 20
# Expressions, evaluated in the attacking process, which has its own processor.
KINDS: Final[Mapping[str, str]] = {
    "nothing": "b''",
    "numbers as names": "call('restart', 'names', array('1', N))",
    "arrays as names": "call('restart', 'names', array('[]', N))",
    "names of nobody": "call('stop', 'names', array('\"nobody\"', N))",
    "one long name": "call('start', 'names', array('\"' + 'x' * N + '\"', N))",
    "counts": "call('scale', 'counts', array('{\"a\":1}', N))",
    "deep arrays": "call('x', 'a', '[' * (N // 2) + ']' * (N // 2))",
    "arrays 60 deep": "call('x', 'a', array('[' * 58 + ']' * 58, N))",
    "a long number": "call('logs', 'tail', '1' * N)",
    "escapes": "call('x', 'a', '\"' + '\\\\u0001' * (N // 6) + '\"')",
    "a state": "call('register', 'state', '{\"a\":' + array('[]', N) + '}')",
    "no JSON": "b'x' * N + b'\\n'",
    "newlines": "b'\\n' * N",
    "pings": 'b\'{"id":2,"do":"ping"}\\n\' * (N // 20)',
    "status": 'b\'{"id":2,"do":"status"}\\n\' * (N // 200)',
    "refusals": 'b\'{"id":2,"do":"stop","names":[1]}\\n\' * (N // 33)',
    "events": 'many(\'"do":"events","follow":true\')',
    "logs": 'many(\'"do":"logs","tail":10000\')',
    "restarts": 'many(\'"do":"restart","names":["nobody"]\')',
    "forwards": 'many(\'"do":"forward","name":"worker.0","operation":'
    '{"do":"thread_dump"}\')',
}
ATTACK: Final = """
import socket, sys
N = int(sys.argv[2])
def array(item, size): return '[' + ','.join([item] * (size // (len(item) + 1))) + ']'
def call(do, name, value): return f'{{"id":2,"do":"{do}","{name}":{value}}}\\n'.encode()
def many(rest): return b''.join(
    b'{"id":%d,%s}\\n' % (i, rest.encode()) for i in range(2, 2002, 2))
data = eval(sys.argv[3])
connections = []
for size in (len(data), len(data) // 10):
    for _ in range(4):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(2)
        connection.connect(sys.argv[1])
        connections.append(connection)
        try:
            connection.sendall(data[:size] + b'\\n')
        except OSError:
            pass
"""


def attack(socket: str, kind: str, size: int = 2 * MIB) -> list[str]:
    """Return a program that sends input of *kind* over several connections."""
    return [sys.executable, "-S", "-c", ATTACK, socket, str(size), KINDS[kind]]


async def run(frame: Frame) -> None:
    """Measure each kind, and the longest wait without hostile input."""
    repeats = 1 if frame.options.is_quick else 5
    async with open_served(1) as served:
        await served.wait_all_ready()
        await served.settle()
        async with open_client(served.socket) as victim:
            for kind in KINDS:

                async def longest(kind: str = kind) -> float:
                    worst = 0.0
                    process = await trio.lowlevel.open_process(
                        attack(served.socket, kind), stderr=subprocess.DEVNULL
                    )
                    while process.poll() is None:
                        began = now()
                        await victim.ping()
                        worst = max(worst, now() - began)
                        await trio.sleep(0.001)
                    return worst

                name = f"hostile: longest ping, {kind}"
                await frame.measure(name, longest, unit="ms", repeats=repeats)
