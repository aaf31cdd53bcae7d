"""Test the names of log services."""

from __future__ import annotations

import pytest

from trio_supervisor.policy.log_target import parse_log_target


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("journald", "journald (/run/systemd/journal/socket)"),
        ("journald:/run/j", "journald (/run/j)"),
        ("syslog", "syslog (/dev/log)"),
        ("syslog:/run/log", "syslog (/run/log)"),
        ("syslog:udp://logs.example.org:514", "syslog (udp://logs.example.org:514)"),
        ("syslog:tcp://[::1]:601", "syslog (tcp://[::1]:601)"),
    ],
)
def test_parse_log_target(text: str, shown: str) -> None:
    assert str(parse_log_target(text)) == shown


def test_parse_log_target_parts() -> None:
    target = parse_log_target("syslog:tcp://[::1]:601")
    assert (target.kind, target.transport) == ("syslog", "tcp")
    assert (target.path, target.host, target.port) == ("", "::1", 601)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected journald, syslog, "),
        ("journal", "or syslog:tcp://HOST:PORT"),
        ("journald:", "expected journald, syslog, "),
        ("journald:run", "expected journald:/PATH$"),
        ("journald:udp://a:1", "expected journald:/PATH$"),
        ("syslog:udp://a", "expected syslog:/PATH, syslog:udp://HOST:PORT, "),
        ("syslog:http://a:1", "expected syslog:/PATH"),
        ("syslog:udp://a:0", "expected a port from 1 to 65535"),
        ("syslog:udp://a:65536", "expected a port from 1 to 65535"),
        ("syslog:/" + 107 * "x", "a path of at most 107 bytes"),
        ("syslog:/a\0b", "a path of at most 107 bytes"),
    ],
)
def test_parse_log_target_refuses(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_log_target(text)
