"""Answer each JSON line with another: ``python -m benchmarks.echo PATH LIBRARY``.

A trio process that does the minimum: it uses only the id.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

import orjson
import trio

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes], Any]

LIBRARIES: Final[dict[str, tuple[Encode, Decode]]] = {
    "json": (lambda tree: json.dumps(tree).encode(), json.loads),
    "orjson": (orjson.dumps, orjson.loads),
}
"""How each library encodes and decodes a line, without its newline."""


async def serve(path: str, library: str) -> None:
    """Serve one connection; send the answers to one read in one write."""
    encode, decode = LIBRARIES[library]
    listening = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await listening.bind(path)
    listening.listen()
    print("listening", flush=True)
    connection, _ = await listening.accept()
    stream = trio.SocketStream(connection)
    rest = b""
    async for data in stream:
        *lines, rest = (rest + bytes(data)).split(b"\n")
        answers = [
            encode({"id": decode(line)["id"], "finished": True}) for line in lines
        ]
        await stream.send_all(b"\n".join([*answers, b""]))


if __name__ == "__main__":
    trio.run(serve, sys.argv[1], sys.argv[2])
