"""Test the completion of the command line, in a real bash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kits.serving import COMMAND, open_serving
from trio_supervisor.cli.verbs import VERBS


def script_of(shell: str) -> str:
    return subprocess.run(
        [*COMMAND, "completion", shell], check=True, capture_output=True, text=True
    ).stdout


def completed(
    line: list[str], directory: Path | None = None, socket: str = "/no/such"
) -> list[str]:
    """What bash offers for the last word of *line*."""
    words = " ".join(f"'{word}'" for word in line)
    source = f"""
trio-supervisor() {{ "{sys.executable}" -m trio_supervisor "$@"; }}
compopt() {{ :; }}
{script_of("bash")}
COMP_WORDS=(trio-supervisor {words}); COMP_CWORD={len(line)}
_trio_supervisor
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    finished = subprocess.run(
        ["bash", "-c", source],
        check=True,
        capture_output=True,
        text=True,
        cwd=directory,
        env={"TRIO_SUPERVISOR_SOCKET": socket, "PATH": "/usr/bin:/bin"},
    )
    assert finished.stderr == ""
    return finished.stdout.split()


def test_verbs_are_completed() -> None:
    assert completed(["st"]) == ["status", "stop", "start"]
    assert set(VERBS) <= set(completed([""]))


def test_options_and_choices_are_completed() -> None:
    assert completed(["logs", "--t"]) == ["--tail", "--timeout"]
    assert completed(["probe", "re"]) == ["readiness"]


def test_names_of_workers_are_completed() -> None:
    service = """
from trio_supervisor import Application, Command
application = Application([Command("web", ["sleep", "1000"], count=2),
                           Command("jobs", ["sleep", "1000"])])
"""
    with open_serving(service) as serving:
        socket = str(serving.directory / "supervisor.ipc")
        assert completed(["restart", "w"], socket=socket) == ["web", "web.0", "web.1"]
        assert completed(["logs", "web", "jo"], socket=socket) == ["jobs", "jobs.0"]


def test_nothing_is_offered_without_a_supervisor() -> None:
    assert completed(["restart", "w"]) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_has_every_verb(shell: str) -> None:
    script = script_of(shell)
    assert all(name in script for name in VERBS)


def test_bash_accepts_the_script() -> None:
    finished = subprocess.run(["bash", "-n"], input=script_of("bash"), text=True)
    assert finished.returncode == 0
