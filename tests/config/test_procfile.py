"""Test what a Procfile amounts to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.configured import find_target
from trio_supervisor.application import Application, Command
from trio_supervisor.application.templates import filled
from trio_supervisor.config.application_file import configure
from trio_supervisor.config.procfile import read_procfile
from trio_supervisor.errors import SpecError

PROCFILE = """\
# comment
web: gunicorn shop:app --bind 0.0.0.0:$PORT
worker:   celery -A shop worker ${OPTS} | grep {index}

clock: python clock.py
"""


def read(directory: Path, text: str, **environment: str) -> Application:
    path = directory / "Procfile"
    path.write_text(text)
    file = read_procfile(str(path), "Procfile", environment)
    return configure(file, find_target, environment).application


def test_procfile_runs_each_line_in_a_shell_with_a_port(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OPTS=-v\n")
    application = read(tmp_path, PROCFILE)
    commands = [filled(each, 1) for each in application.services]
    assert [each.name for each in commands] == ["web", "worker", "clock"]
    lines = [each.arguments[2] for each in commands if isinstance(each, Command)]
    assert lines == [
        "gunicorn shop:app --bind 0.0.0.0:$PORT",
        "celery -A shop worker ${OPTS} | grep {index}",
        "python clock.py",
    ]
    ports = [each.environment["PORT"] for each in commands]
    assert ports == ["5001", "5101", "5201"]
    assert {each.environment["OPTS"] for each in commands} == {"-v"}
    assert {each.directory for each in commands} == {str(tmp_path)}


def test_procfile_begins_at_the_given_port(tmp_path: Path) -> None:
    (first,) = read(tmp_path, "web: x", PORT="9000").services
    assert filled(first, 0).environment == {"PORT": "9000"}
    (tmp_path / ".env").write_text("PORT=7000\n")
    (first,) = read(tmp_path, "web: x", PORT="9000").services
    assert filled(first, 0).environment == {"PORT": "7000"}


def test_malformed_lines_are_listed_with_their_numbers(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        read(tmp_path, "web: x\nweb: y\nnonsense\nempty:\n")
    assert str(caught.value).splitlines()[1:] == [
        "  Procfile, line 2: services.web: already declared in line 1",
        "  Procfile, line 3: services.nonsense: expected NAME: COMMAND",
        "  Procfile, line 4: services.empty: expected NAME: COMMAND",
    ]


def test_release_runs_once_before_the_others(tmp_path: Path) -> None:
    text = "web: x\nrelease: python migrate.py\nworker: y\n"
    by_name = {each.name: each for each in read(tmp_path, text).services}
    assert by_name["release"].restart.value == "on-failure"
    assert by_name["release"].depends_on == {}
    for name in ("web", "worker"):
        assert by_name[name].restart.value == "always"
        assert by_name[name].depends_on == {"release": "exited_ok"}
