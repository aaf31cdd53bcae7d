"""``python -m benchmarks.echo PATH LIBRARY``: answers each JSON line with one.

A trio process. The least that can be done: nothing is looked at but the id.
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
"""How each writes and reads a line, its newline excluded."""


async def serve(path: str, library: str) -> None:
    """Serve one connection; answers to what was read at once are sent at once."""
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
