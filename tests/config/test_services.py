"""Test that secrets reach the environment, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.configured import configured
from trio_supervisor.application import Command, Probe
from trio_supervisor.application.templates import filled
from trio_supervisor.errors import SpecError

SECRET = "s3cr{index}et${HOME}"


def test_secret_reaches_the_environment_as_it_is(tmp_path: Path) -> None:
    text = (
        '[services.a]\ncommand = ["a"]\n'
        'environment = { KEY = { file = "key" }, URL = "db://${KEY}@h:{1+index}" }'
    )
    (service,) = configured(tmp_path, text, files={"key": SECRET}).application.services
    environment = filled(service, 1).environment
    assert environment == {"KEY": SECRET, "URL": f"db://{SECRET}@h:2"}
    assert "s3cr" not in repr(service)


@pytest.mark.parametrize("key", ["command", "log_file", "pre_stop"])
def test_secret_in_another_option_is_refused_and_not_shown(
    tmp_path: Path, key: str
) -> None:
    line = {"command": 'command = "a ${KEY}"'}.get(
        key, f'command = "a"\n{key} = "x${{KEY}}"'
    )
    text = f'[env]\nKEY = {{ file = "key" }}\n[services.a]\n{line}'
    with pytest.raises(SpecError) as caught:
        configured(tmp_path, text, files={"key": "s3cret"})
    assert f"services.a.{key}: contains a secret, which every" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_probe_of_each_worker_asks_its_own_port(tmp_path: Path) -> None:
    text = (
        '[services.a]\ncommand = "a"\nenvironment = { PORT = "{8000+index}" }\n'
        'readiness = { tcp = "127.0.0.1:${PORT}" }\n'
        'liveness = { command = "check {index}" }'
    )
    found = configured(tmp_path, text).application
    command = filled(found.service("a"), 1)
    assert isinstance(command, Command)
    assert command.readiness == Probe.tcp("127.0.0.1:8001")
    assert command.liveness == Probe.command(["check", "1"])


def test_literal_braces_of_a_variable_stay_in_every_option(tmp_path: Path) -> None:
    text = (
        '[services.a]\ncommand = ["a", "${X}", "{index}", "{{index}}"]\n'
        'readiness = { http = "http://h/${X}" }'
    )
    found = configured(tmp_path, text, {"X": "{name}"}).application
    command = filled(found.service("a"), 4)
    assert isinstance(command, Command)
    assert command.arguments == ("a", "{name}", "4", "{index}")
    assert str(command.readiness) == "http://h:80/{name}"
