"""Run a trio worker for any supervisor: ``python -m benchmarks.peer_worker SOCKET``.

It sends its process id to SOCKET, a datagram socket, as soon as its event loop runs.
"""

from __future__ import annotations

import os
import socket
import sys

import trio


def announce(path: str) -> None:
    """Report that this process is ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(str(os.getpid()).encode(), path)


async def work(path: str) -> None:
    """Report readiness and wait."""
    announce(path)
    await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(work, sys.argv[1])
