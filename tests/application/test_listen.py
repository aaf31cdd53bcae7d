"""Test addresses to listen on: parsed, normalised, and rejected by name."""

from __future__ import annotations

import pickle
import socket
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.application import Listen
from trio_supervisor.errors import SpecError


@pytest.mark.parametrize(
    ("url", "host", "port", "told"),
    [
        ("tcp://127.0.0.1:8000", "127.0.0.1", 8000, "tcp://127.0.0.1:8000"),
        ("tcp://0.0.0.0:1", "0.0.0.0", 1, "tcp://0.0.0.0:1"),
        ("tcp://:80", "*", 80, "tcp://*:80"),
        ("tcp://*:0", "*", 0, "tcp://*:0"),
        ("tcp://[::1]:65535", "::1", 65535, "tcp://[::1]:65535"),
        ("tcp://[0:0::1]:1", "::1", 1, "tcp://[::1]:1"),
        ("tcp://[fe80::1%eth0]:1", "fe80::1%eth0", 1, "tcp://[fe80::1%eth0]:1"),
        ("tcp://Web-1.Local:0080", "web-1.local", 80, "tcp://web-1.local:80"),
    ],
)
def test_tcp_url_is_parsed(url: str, host: str, port: int, told: str) -> None:
    """And `str` returns it in one form."""
    listen = Listen(url)
    assert (listen.kind, listen.host, listen.port) == ("tcp", host, port)
    assert listen.path == ""
    assert str(listen) == told
    assert Listen(told) == listen


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("unix:///run/web.sock", "/run/web.sock"),
        ("unix://web.sock", "web.sock"),
        ("unix://a b:c/?#", "a b:c/?#"),
        (f"unix://{'x' * 107}", 107 * "x"),
    ],
)
def test_unix_url_keeps_its_path(url: str, path: str) -> None:
    """Absolute or relative, with any characters that a file system accepts."""
    listen = Listen(url)
    assert (listen.kind, listen.path, str(listen)) == ("unix", path, url)
    assert (listen.host, listen.port) == ("", 0)


def test_listen_without_options_has_defaults() -> None:
    """Only the owner may use the file, and all workers share one socket."""
    listen = Listen("unix://web.sock")
    assert (listen.backlog, listen.reuse_port, listen.mode) == (1024, False, 0o600)
    changed = Listen("tcp://:0", backlog=1, reuse_port=True, mode=0o660)
    assert (changed.backlog, changed.reuse_port, changed.mode) == (1, True, 0o660)


def test_unix_socket_accepts_user_and_group() -> None:
    """By name or number. The group may use the file unless a mode is set."""
    listen = Listen("unix://web.sock")
    assert (listen.user, listen.group) == (None, None)
    shared = Listen("unix://web.sock", user="deploy", group=33)
    assert (shared.user, shared.group, shared.mode) == ("deploy", 33, 0o660)
    assert Listen("unix://web.sock", group=33, mode=0o600).mode == 0o600


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (8000, "expected a string"),
        ("127.0.0.1:8000", "tcp://HOST:PORT or unix://PATH"),
        ("http://127.0.0.1:8000", "tcp://HOST:PORT or unix://PATH"),
        ("tcp://127.0.0.1", "with a port"),
        ("tcp://127.0.0.1:", "with a port"),
        ("tcp://127.0.0.1:65536", "up to 65535"),
        ("tcp://127.0.0.1:-1", "with a port"),
        ("tcp://a:1/", "with a port"),
        pytest.param("tcp://a:\u0661", "with a port", id="a digit of Arabic"),
        ("tcp://::1:80", "in brackets"),
        ("tcp://[::1:80", "in brackets"),
        ("tcp://[127.0.0.1]:80", "host name or an IP address"),
        ("tcp://127.0.0.256:80", "host name or an IP address"),
        ("tcp://a b:80", "host name or an IP address"),
        ("tcp://-a:80", "host name or an IP address"),
        ("tcp://a.:80", "host name or an IP address"),
        (f"tcp://{'a' * 254}:80", "host name or an IP address"),
        ("unix://", "1 to 107 bytes"),
        (f"unix://{'x' * 108}", "1 to 107 bytes"),
        pytest.param(f"unix://{'ü' * 54}", "107 bytes", id="bytes, not letters"),
        ("unix://a\0", "expected a string"),
    ],
)
def test_invalid_url_is_rejected(url: str, words: str) -> None:
    """The message describes a valid one."""
    with pytest.raises(SpecError, match=r"^url: ") as caught:
        Listen(url)
    assert words in caught.value.problem


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("backlog", 0),
        ("backlog", 65_536),
        ("backlog", "1"),
        ("reuse_port", 1),
        ("mode", 0o1000),
        ("mode", -1),
        ("mode", "600"),
        pytest.param("user", "www-data", id="user, of tcp"),
        pytest.param("group", 33, id="group, of tcp"),
    ],
)
def test_invalid_option_is_rejected_by_name(field: str, value: object) -> None:
    with pytest.raises(SpecError) as caught:
        Listen("tcp://:0", **{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field


def test_unix_socket_rejects_reuse_port() -> None:
    """The kernel cannot distribute connections among Unix sockets."""
    with pytest.raises(SpecError, match="reuse_port: is for tcp only"):
        Listen("unix://a", reuse_port=True)


def test_listen_is_equal_hashed_and_pickled_by_value() -> None:
    """And it is immutable."""
    listen = Listen("tcp://LOCALHOST:1")
    assert {listen, Listen("tcp://localhost:1")} == {listen}
    assert listen != Listen("tcp://localhost:1", backlog=5)
    assert pickle.loads(pickle.dumps(listen)) == listen
    with pytest.raises(AttributeError):
        listen.port = 2  # type: ignore[misc]


@given(st.text() | st.from_regex(r"(tcp|unix)://[\[\]:%.*a-f0-9]*", fullmatch=True))
def test_str_of_an_accepted_url_is_accepted_again(url: str) -> None:
    """As an equal `Listen`."""
    with suppress(SpecError):
        listen = Listen(url)
        assert Listen(str(listen)) == listen


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "tcp://localhost:0"])
def test_accepted_address_can_be_bound(url: str) -> None:
    """With a real socket: bind() accepts the host and port."""
    listen = Listen(url)
    with socket.create_server((listen.host, listen.port)) as server:
        assert server.getsockname()[1]


@pytest.mark.parametrize("field", ["user", "group"])
@pytest.mark.parametrize("value", ["", "a\0b", -1, 2**32 - 1, True, 1.5, ["www-data"]])
def test_invalid_owner_is_rejected(field: str, value: object) -> None:
    with pytest.raises(SpecError) as caught:
        Listen("unix://web.sock", **{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field
