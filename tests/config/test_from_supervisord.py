"""Test that configurations of supervisord convert to what they mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.configured import configured
from tests.kits.foreign_configurations import SUPERVISORD
from trio_supervisor.application import Application, Command
from trio_supervisor.application.templates import filled
from trio_supervisor.config.from_supervisord import convert_supervisord
from trio_supervisor.errors import SpecError, SupervisorError, TargetError


def converted(directory: Path, text: str) -> tuple[str, Application]:
    path = directory / "supervisord.conf"
    path.write_text(text)
    found = convert_supervisord(str(path))
    environment = {"TOKEN": "t0ken", "HOME": "/root"}
    return found, configured(directory, found, environment).application


def convert_of(directory: Path, text: str) -> str:
    path = directory / "supervisord.conf"
    path.write_text(text)
    return convert_supervisord(str(path))


def command_of(application: Application, name: str) -> Command:
    service = application.service(name)
    assert isinstance(service, Command)
    return service


@pytest.mark.parametrize("name", SUPERVISORD)
def test_conversion_is_valid(tmp_path: Path, name: str) -> None:
    text, _ = converted(tmp_path, SUPERVISORD[name])
    assert text.startswith("# Converted from supervisord.conf; check it: ")


def test_programs_are_services_in_order_of_priority(tmp_path: Path) -> None:
    name = "gunicorn and celery of a Django shop"
    text, application = converted(tmp_path, SUPERVISORD[name])
    celery, gunicorn = (filled(each, 0) for each in application.services)
    assert text.index("[services.celery]") < text.index("[services.gunicorn]")
    gunicorn, celery = (command_of(application, n) for n in ("gunicorn", "celery"))
    assert gunicorn.arguments[1:4] == (
        "shop.wsgi:application",
        "--bind",
        "127.0.0.1:8000",
    )
    assert (gunicorn.restart.value, gunicorn.user) == ("always", "www-data")
    assert (gunicorn.log_file, gunicorn.kill_mode) == (None, "group")
    assert (celery.restart.value, celery.stop_timeout) == ("on-failure", 600)
    assert celery.environment["DJANGO_SETTINGS_MODULE"] == "shop.settings"
    assert "# priority = 20: services start in parallel; for an order" in text
    assert '[groups.shop]\nchildren = ["gunicorn", "celery"]' in text


def test_expansions_become_templates(tmp_path: Path) -> None:
    name = "tornado with a port for each process"
    text, application = converted(tmp_path, SUPERVISORD[name])
    api = command_of(application, "api")
    second = filled(api, 1)
    assert second.arguments == (
        "python",
        "/srv/api/main.py",
        "--port=8002",
        "--name=api",
    )
    assert second.log_file == "/var/log/api/api_2.log"
    assert second.stderr_log_file == "/var/log/api/error.log"
    assert (api.log_max_size, api.log_keep, api.log_compress) == (10 * 2**20, 5, False)
    assert api.count == 4
    assert api.success_exit_codes == frozenset({0, 2})
    for note in (
        "# startretries = 5: a service is retried for ever, with growing delays",
    ):
        assert note in text


def test_output_to_syslog_stays_there(tmp_path: Path) -> None:
    """With a file for standard error, or without."""
    text = """
[program:a]
command = cat
stdout_logfile = syslog
stderr_logfile = /var/log/a.err
"""
    _, application = converted(tmp_path, text)
    command = command_of(application, "a")
    assert (command.log_to, command.log_file) == ("syslog", None)
    assert command.stderr_log_file == "/var/log/a.err"


def test_padded_number_behind_other_text_is_noted(tmp_path: Path) -> None:
    line = "[program:a]\ncommand=a x%(process_num)02d %(oops)s %(host_node_name)s"
    text = convert_of(tmp_path, line)
    assert '"x{index}", "%(oops)s", "${HOSTNAME}"' in text
    assert "# %(process_num)02d: the number is not padded" in text
    assert "# %(oops)s: unknown expansion" in text


def test_other_sections_become_comments_without_passwords(tmp_path: Path) -> None:
    name = "nginx, php-fpm and cron in one container"
    text, application = converted(tmp_path, SUPERVISORD[name])
    assert "# [unix_http_server]: the supervisor's socket is `serve --socket`" in text
    assert "# password = (hidden)" in text
    assert "thetest" not in text
    assert command_of(application, "nginx").arguments == ("nginx", "-g", "daemon off;")
    assert command_of(application, "nginx").restart.value == "never"
    assert command_of(application, "php-fpm").stable_for == 5
    assert not command_of(application, "cron").autostart
    assert "start it: trio-supervisor start cron" in text


def test_fcgi_program_gets_its_socket(tmp_path: Path) -> None:
    _, application = converted(tmp_path, SUPERVISORD["fcgi"])
    catalog = command_of(application, "catalog")
    assert catalog.arguments[:3] == ("sh", "-c", 'exec "$0" "$@" <&3')
    assert catalog.arguments[3:] == (
        "/usr/bin/catalog.fcgi",
        "--config",
        "/etc/my catalog.conf",
    )
    listen = catalog.sockets["fcgi"]
    assert (listen.url, listen.mode) == ("unix:///run/catalog.sock", 0o660)
    assert (listen.user, listen.group, listen.backlog) == ("www-data", "www-data", 512)


def test_environment_and_event_listener(tmp_path: Path) -> None:
    text, application = converted(tmp_path, SUPERVISORD["event listener"])
    worker = filled(command_of(application, "worker"), 0)
    expected = {"TOKEN": "t0ken", "RATE": "50%", "HERE": str(tmp_path), "N": "0"}
    assert worker.environment == expected
    assert "# [eventlistener:memmon]: follow `trio-supervisor events -f" in text
    assert "# events = TICK_60" in text


def test_shell_characters_stay_as_they_are(tmp_path: Path) -> None:
    name = "shell characters and braces"
    _, application = converted(tmp_path, SUPERVISORD[name])
    odd = filled(command_of(application, "odd-name"), 0)
    line = 'for i in 1 2; do echo "${i} {index}" $HOME; done; sleep 1000'
    assert odd.arguments == ("sh", "-c", line)


def test_included_files_are_converted_too(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a.conf").write_text("[program:a]\ncommand=a\n")
    _, application = converted(tmp_path, "[include]\nfiles = conf.d/*.conf\n")
    assert [each.name for each in application.services] == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[program:a]\n", r"^\[program:a\]: has no command$"),
        ("[program:a]\ncommand='x", r"^\[program:a\] command: no closing quotation$"),
        ("[program:a]\ncommand=x\nnumprocs=many", r"^\[program:a\] numprocs: invalid"),
        ("[program:a]\ncommand=x\nautorestart=maybe", r"autorestart: expected true or"),
        ("[program:a]\ncommand=x\nenvironment=A", r"environment: expected KEY=value"),
        ("[program:a]\ncommand=x\nexitcodes=a", r"exitcodes: expected numbers, got a"),
        ("[supervisord]\nenvironment=A", r"^\[supervisord\] environment: expected"),
        ("command=x", r"supervisord\.conf, line 1: File contains no section headers"),
        ("[program:a]\nnonsense\n", r"supervisord\.conf, line 2: "),
    ],
)
def test_malformed_configuration_raises(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "supervisord.conf"
    path.write_text(text)
    with pytest.raises(SupervisorError, match=message) as caught:
        convert_supervisord(str(path))
    assert isinstance(caught.value, SpecError | TargetError)
