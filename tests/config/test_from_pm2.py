"""Test that configurations of pm2 convert to what they mean."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.kits.configured import configured
from tests.kits.foreign_configurations import PM2
from trio_supervisor.application import Application, Command
from trio_supervisor.application.templates import filled
from trio_supervisor.config.from_pm2 import convert_pm2
from trio_supervisor.errors import SpecError, SupervisorError, TargetError
from trio_supervisor.policy.restart import Backoff


def converted(directory: Path, text: str) -> tuple[str, Application]:
    path = directory / "ecosystem.config.js"
    path.write_text(text)
    found = convert_pm2(str(path))
    return found, configured(directory, found).application


def commands(application: Application, index: int = 0) -> list[Command]:
    found = [filled(each, index) for each in application.services]
    return [each for each in found if isinstance(each, Command)]


@pytest.mark.parametrize("name", PM2)
def test_conversion_is_valid(tmp_path: Path, name: str) -> None:
    text, application = converted(tmp_path, PM2[name])
    assert text.startswith("# Converted from ecosystem.config.js; check it: ")
    assert all(each.stop_signal.name == "SIGINT" for each in application.services)


def test_javascript_module_is_converted(tmp_path: Path) -> None:
    text, application = converted(tmp_path, PM2["ecosystem.config.js"])
    api, worker = commands(application, 1)
    assert api.arguments == ("node", "--max-old-space-size=512", "./dist/server.js")
    assert (api.count, api.directory, api.stop_timeout) == (4, "/srv/api", 5.0)
    assert api.startup_timeout == 10
    assert api.environment == {
        "NODE_ENV": "development",
        "PORT": "3001",
        "DEBUG": "false",
        "NODE_APP_INSTANCE": "1",
    }
    assert worker.name == "worker-queue"
    python = "/venv/bin/python"
    assert worker.arguments == (python, "worker.py", "--queue", "mails and more")
    assert worker.restart.value == "never"
    assert worker.backoff == Backoff(base=3, cap=3, stable_after=10)
    assert worker.log_file == "/var/log/worker.log"
    assert worker.stderr_log_file == "/var/log/worker.err"
    for note in (
        "# exec_mode = cluster: processes do not share a port of their own",
        "# env_production (NODE_ENV): no equivalent; use another file",
        "maximum_size_limit = 314572800",
        "# wait_ready = true: process.send('ready') is not heard",
        "# deploy: no equivalent; see docs/deployment.md for releases",
    ):
        assert note in text


def test_json_is_converted(tmp_path: Path) -> None:
    text, application = converted(tmp_path, PM2["process.json"])
    (web,) = commands(application)
    assert web.arguments == ("npm", "run", "start", "--", "-p", "3000")
    assert (web.count, web.user) == (4, "www-data")
    assert web.give_up_on == frozenset({0, 3})
    assert '# cron_restart = "0 3 * * *": for a maximum age, use max_lifetime' in text
    assert "merge_logs" not in text


def test_interpreters_follow_the_extension(tmp_path: Path) -> None:
    _, application = converted(tmp_path, PM2["scripts of several languages"])
    found = commands(application)
    assert [each.name for each in found] == ["app", "run", "redis-server", "app-2"]
    assert [each.arguments for each in found] == [
        ("python", "app.py"),
        ("run.sh",),
        ("/usr/bin/redis-server", "--port", "7000", "--dir", "/var/my dir"),
        ("ruby", "other.rb"),
    ]
    _, application = converted(tmp_path, PM2["one application"])
    (found_one,) = commands(application)
    assert found_one.arguments == ("npm", "start")
    assert found_one.kill_mode == "leader"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "module.exports = {\n  apps: [{ script: f(x) }] }",
            r"js, line 2: not a plain literal; replace it by its value, got 'f\(x\)",
        ),
        ("const a = 1", r"js, line 1: expected module\.exports = \{ \.\.\. \}, got"),
        ("module.exports = { apps: 3 }", r"js: apps: expected a list of objects$"),
        ("module.exports = { apps: [{}] }", r"^apps\[0\]\.script: expected the path"),
        (
            "[{ script: 'a', kill_timeout: 'x' }]",
            r"^apps\[0\]\.kill_timeout: expected milliseconds, got 'x'$",
        ),
        (
            "[{ script: 'a', max_memory_restart: 'x' }]",
            r"^apps\[0\]\.max_memory_restart: expected a size such as 300M",
        ),
        ("[{ script: 'a', args: \"'\" }]", r"^apps\[0\]\.args: no closing quotation$"),
    ],
)
def test_malformed_configuration_raises(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "ecosystem.config.js"
    path.write_text(text)
    with pytest.raises(SupervisorError, match=message) as caught:
        convert_pm2(str(path))
    assert isinstance(caught.value, SpecError | TargetError)


COMPUTED = """
const common = { autorestart: false, env: { A: process.env.A, B: "b" } };
module.exports = { apps: [
  { ...common, name: "report", script: "./r.sh", cron_restart: "0 3 * * *" },
  { name: "api", script: "./a.py", time: true, out_file: "a.log" },
] };
"""


def test_computed_file_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "ecosystem.config.js"
    path.write_text(COMPUTED)
    text = convert_pm2(str(path))
    assert "# process.env was taken as empty; what it has here is inherited" in text
    document = tomllib.loads(text)["services"]
    assert document["report"]["schedule"] == {"cron": "0 3 * * *"}
    assert "restart" not in document["report"]
    assert document["report"]["environment"] == {
        "B": "b",
        "NODE_APP_INSTANCE": "{index}",
    }
    assert document["api"]["log_timestamps"] is True
