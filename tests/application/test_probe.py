"""Test probes: what they ask, how often, and which values are rejected."""

from __future__ import annotations

import pickle

import pytest

from trio_supervisor.application import Probe
from trio_supervisor.errors import SpecError


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://127.0.0.1:8000/health?deep=1", "127.0.0.1", 8000, "/health?deep=1"),
        ("http://LocalHost", "localhost", 80, "/"),
        ("http://localhost:81", "localhost", 81, "/"),
        ("http://[::1]/a%20b", "::1", 80, "/a%20b"),
        ("http://[::1]:5/", "::1", 5, "/"),
    ],
)
def test_http_url_is_parsed(url: str, host: str, port: int, path: str) -> None:
    """A missing port or path gets its default."""
    probe = Probe.http(url)
    assert probe.kind == "http"
    assert (probe.host, probe.port, probe.path) == (host, port, path)
    assert Probe.http(str(probe)) == probe


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://a/", "use Probe.command"),
        ("HTTPS://a/", "use Probe.command"),
        ("a:80", "http://HOST:PORT/PATH"),
        ("ftp://a/", "http://HOST:PORT/PATH"),
        pytest.param("http://a/ HTTP/1.1\r\nX: ", "printable ASCII", id="a header"),
        ("http://a/ü", "printable ASCII"),
        ("http://a/#top", "printable ASCII"),
        ("http://a?x", "http://HOST:PORT/PATH"),
        ("http://me:secret@a/", "HOST:PORT"),
        ("http:///", "a host and a port"),
        ("http://*:80/", "a host and a port"),
        ("http://a:0/", "a host and a port"),
        (80, "expected a string"),
    ],
)
def test_invalid_http_url_is_rejected(url: str, words: str) -> None:
    """The message describes a valid one."""
    with pytest.raises(SpecError, match=r"^url: ") as caught:
        Probe.http(url)
    assert words in caught.value.problem


def test_tcp_and_command_keep_what_they_ask() -> None:
    """Each kind has only the attributes that it needs."""
    tcp = Probe.tcp("[::1]:6379")
    assert (tcp.kind, tcp.host, tcp.port, tcp.path) == ("tcp", "::1", 6379, "")
    command = Probe.command(["redis-cli", "ping"])
    assert (command.kind, command.arguments) == ("command", ("redis-cli", "ping"))
    assert [str(tcp), str(command)] == ["tcp://[::1]:6379", "redis-cli ping"]


@pytest.mark.parametrize("address", ["6379", ":6379", "a:0", "*:1", "tcp://a:1", None])
def test_invalid_tcp_address_is_rejected(address: str) -> None:
    """A probe needs a host and a port to connect to."""
    with pytest.raises(SpecError, match=r"^address: "):
        Probe.tcp(address)


def test_command_must_be_a_list() -> None:
    with pytest.raises(SpecError, match=r"^arguments: "):
        Probe.command("redis-cli ping")


def test_schedule_has_its_documented_defaults() -> None:
    """Every five seconds; three failures in a row."""
    probe = Probe.tcp("a:1")
    assert (probe.interval, probe.timeout, probe.delay) == (5.0, 2.0, 0.0)
    assert (probe.failures, probe.successes) == (3, 1)


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("interval", 1, 0),
        ("timeout", 0.5, 0),
        ("delay", 0, -1),
        ("failures", 1, 0),
        ("successes", 2, 1.5),
    ],
)
def test_schedule_can_be_set(field: str, good: float, bad: float) -> None:
    """For each kind of probe."""
    for make, what in ((Probe.http, "http://a/"), (Probe.tcp, "a:1")):
        assert getattr(make(what, **{field: good}), field) == good  # type: ignore[arg-type]
        with pytest.raises(SpecError, match=f"^{field}: "):
            make(what, **{field: bad})  # type: ignore[arg-type]
    assert getattr(Probe.command(["true"], **{field: good}), field) == good  # type: ignore[arg-type]


def test_probe_is_equal_and_pickled_by_value() -> None:
    probe = Probe.http("http://a/", failures=9)
    assert (
        pickle.loads(pickle.dumps(probe))
        == probe
        == Probe.http("http://A:80", failures=9)
    )
    assert probe != Probe.http("http://a/")
