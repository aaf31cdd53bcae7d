"""Which services share a socket, and what it is called."""

from __future__ import annotations

import pytest

from trio_supervisor.application import Application, Command, Listen
from trio_supervisor.controller.launch.socket_keys import socket_keys

ONE, TWO = Listen("tcp://127.0.0.1:7781"), Listen("tcp://127.0.0.1:7782")
FREE, UNIX = Listen("tcp://127.0.0.1:0"), Listen("unix://web.sock")


@pytest.mark.parametrize(
    ("sockets", "keys"),
    [
        ({"a": {"http": ONE}}, {"a": {"http": "http"}}),
        (
            {"a": {"http": ONE}, "b": {"http": ONE}},
            {"a": {"http": "http"}, "b": {"http": "http"}},
        ),
        (
            {"a": {"http": ONE}, "b": {"web": ONE}},
            {"a": {"http": "http"}, "b": {"web": "http"}},
        ),
        ({"a": {"x": UNIX}, "b": {"y": UNIX}}, {"a": {"x": "x"}, "b": {"y": "x"}}),
        (
            {"a": {"http": ONE}, "b": {"http": ONE}, "c": {"http": TWO}},
            {"a": {"http": "a-http"}, "b": {"http": "a-http"}, "c": {"http": "c-http"}},
        ),
        (
            {"a": {"p": FREE, "q": FREE}, "b": {"p": FREE}},
            {"a": {"p": "a-p", "q": "q"}, "b": {"p": "b-p"}},
        ),
    ],
    ids=["one", "shared", "by other names", "unix", "a name of two", "free"],
)
def test_an_address_is_one_socket_and_a_free_port_is_another_each_time(
    sockets: dict[str, dict[str, Listen]], keys: dict[str, dict[str, str]]
) -> None:
    services = [Command(n, [n], sockets=its) for n, its in sockets.items()]

    listens, found = socket_keys(Application(services))

    assert found == keys
    assert set(listens) == {key for own in keys.values() for key in own.values()}
    for name, own in keys.items():
        for socket, key in own.items():
            assert listens[key] == sockets[name][socket]
