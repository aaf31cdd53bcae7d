"""Test "address already in use" messages of many programs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.policy.port_conflict import wanted_ports

SAID = [
    # redis, nginx, Go, Node, old Node, gunicorn, uvicorn, asyncio
    "# Warning: Could not create server TCP listening socket *:7379: bind: "
    "Address already in use",
    "nginx: [emerg] bind() to 0.0.0.0:7379 failed (98: Address already in use)",
    "2026/11/26 listen tcp :7379: bind: address already in use",
    "Error: listen EADDRINUSE: address already in use :::7379",
    "Error: listen EADDRINUSE 127.0.0.1:7379",
    "[ERROR] Connection in use: ('127.0.0.1', 7379)",
    "ERROR: [Errno 98] error while attempting to bind on address ('::1', "
    "7379, 0, 0): address already in use",
    "OSError: [Errno 98] error while attempting to bind on address "
    "('127.0.0.1', 7379): address already in use",
    # Spring, puma, memcached, php, apache, haproxy, php-fpm, hypercorn, macOS
    "Web server failed to start. Port 7379 was already in use.",
    'Address already in use - bind(2) for "127.0.0.1" port 7379 (Errno::EADDRINUSE)',
    "failed to listen on TCP port 7379: Address already in use",
    "Failed to listen on localhost:7379 (reason: Address already in use)",
    "(98)Address already in use: AH00072: make_sock: could not bind to "
    "address [::]:7379",
    "Starting frontend web: cannot bind socket (Address already in use) [0.0.0.0:7379]",
    "ERROR: unable to bind listening socket for address '127.0.0.1:7379': "
    "Address already in use (98)",
    "OSError: [Errno 48] Address already in use: ('127.0.0.1', 7379)",
    "Is another postmaster already running on port 7379? Address already in use",
]


@pytest.mark.parametrize("line", SAID)
def test_wanted_ports_finds_the_port_in_the_message(line: str) -> None:
    assert 7379 in wanted_ports(["starting", line, "bye"])


@pytest.mark.parametrize(
    ("lines", "arguments", "ports"),
    [
        ([], ["8000"], []),
        (["ready at 127.0.0.1:7379"], ["8000"], []),
        (["OSError: [Errno 98] Address already in use"], ["-m", "x", "8000"], [8000]),
        (["Address already in use"], ["--port=8000", "--bind", "[::]:81"], [8000, 81]),
        (["Address already in use"], ["a8000", "99999", "0", "1.2"], []),
        (["listening on port 7379", "Address already in use"], [], [7379]),
        (
            ["could not bind", "Address already in use", 'HINT: port 5432; or "x"'],
            [],
            [5432],
        ),
        (["port 1", "", "", "", "Address already in use"], [], []),
    ],
)
def test_wanted_ports_finds_the_port_nearby_or_in_the_arguments(
    lines: list[str], arguments: list[str], ports: list[int]
) -> None:
    assert wanted_ports(lines, arguments) == ports


@given(st.lists(st.text(), max_size=5), st.lists(st.text(), max_size=3))
def test_wanted_ports_of_any_output_are_valid(
    lines: list[str], arguments: list[str]
) -> None:
    found = wanted_ports([*lines, "Address already in use"], arguments)
    assert all(0 < port < 65536 for port in found)
