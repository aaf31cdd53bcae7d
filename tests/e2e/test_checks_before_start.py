"""Test that problems are reported before a start, and that nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kits.serving import Serving, open_serving, run_cli, short_directory
from trio_supervisor.process.groups import IS_LINUX

SERVICE = """
from trio_supervisor import Application, Command

application = Application([
    Command("good", ["./good.sh"]),
    Command("none", ["./no-such.sh"], count=0),
    Command("job", ["sh", "-c", "printf '#!/bin/sh\\nexec sleep 1000' > made.sh;"
                    "chmod +x made.sh; mkdir made"], restart="on-failure"),
    Command("made", ["../made.sh"], directory="made", log_file="made/log",
            depends_on={"job": "exited_ok"}),
])
"""
GOOD = "#!/bin/sh\nexec sleep 1000\n"
BAD = """
from trio_supervisor import Application, Command, Probe

application = Application([
    Command("missing", ["no-such-program"]),
    Command("crlf", ["sh", "crlf.sh"], readiness=Probe.command(["./crlf.sh"])),
    Command("nowhere", ["true"], directory="no-such-directory"),
    Command("silent", ["true"], log_file="no-such-directory/log"),
])
"""


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    prefix = ("sh", "-c", 'chmod +x good.sh && exec "$@"', "sh")
    with open_serving(SERVICE, files={"good.sh": GOOD}, prefix=prefix) as found:
        yield found


def test_serve_with_problems_lists_all_and_starts_nothing() -> None:
    with short_directory() as directory:
        (directory / "service.py").write_text(BAD)
        (directory / "crlf.sh").write_bytes(b"#!/bin/sh\r\n")
        (directory / "crlf.sh").chmod(0o755)
        result = run_cli("serve", "service.py", directory=directory)
        left = {path.name for path in directory.iterdir()}
    assert result.returncode == 10
    lines = result.stderr.splitlines()
    assert lines[0] == "trio-supervisor: 4 problems:"
    assert lines[1].startswith(
        "  services[0].arguments[0]: missing: program 'no-such-program' not found in"
    )
    assert lines[2] == (
        "  services[1].readiness.arguments[0]: crlf: ./crlf.sh has CRLF line endings, "
        "so its #! line names the interpreter '/bin/sh\\r'; convert it to LF line "
        "endings"
    )
    assert lines[3] == (
        "  services[2].directory: nowhere: the working directory no-such-directory "
        "does not exist"
    )
    assert "services[3].log_file: silent: cannot write to no-such-direct" in lines[4]
    assert len(lines) == 5
    assert left - {"__pycache__"} == {"service.py", "crlf.sh"}


def test_serve_does_not_check_what_a_job_creates(serving: Serving) -> None:
    assert serving.worker("made.0")["state"] == "ready"


@pytest.mark.parametrize("words", [["reload"], ["reload", "--dry-run"]])
def test_reload_with_problem_is_refused_with_same_message(
    serving: Serving, words: list[str]
) -> None:
    before = serving.when_ready()
    serving.edit(
        SERVICE.replace(
            'Command("none"',
            'Command("new", ["no-such-program"]),\n    Command("none"',
        )
    )
    result = serving.cli(*words)
    serving.edit(SERVICE)
    assert result.returncode != 0
    assert (
        "services[1].arguments[0]: new: program 'no-such-program' not found"
    ) in result.stderr
    after = serving.when_ready()
    assert [worker["process_id"] for worker in after["workers"]] == [
        worker["process_id"] for worker in before["workers"]
    ]


def test_scale_with_problem_is_refused(serving: Serving) -> None:
    result = serving.cli("scale", "none=1")
    assert result.returncode != 0
    assert "none: ./no-such.sh does not exist" in result.stderr
    assert not serving.select(event="scaled")


def test_restart_with_missing_program_keeps_worker(serving: Serving) -> None:
    """The restart succeeds once the program is back."""
    before = serving.worker("good.0")
    program = serving.directory / "good.sh"
    program.chmod(0o644)
    for words in (["restart", "good"], ["restart", "good", "--rolling"]):
        result = serving.cli(*words)
        assert result.returncode != 0
        assert "good: ./good.sh is not executable (mode 0644)" in result.stderr
    assert serving.worker("good.0")["process_id"] == before["process_id"]
    program.chmod(0o755)
    assert serving.cli("restart", "good").returncode == 0


def test_start_with_problem_is_refused(serving: Serving) -> None:
    program = serving.directory / "good.sh"
    serving.cli("stop", "good")
    program.rename(serving.directory / "away.sh")
    result = serving.cli("start", "good")
    assert result.returncode != 0
    assert "good: ./good.sh does not exist" in result.stderr
    assert serving.worker("good.0")["state"] == "stopped"
    (serving.directory / "away.sh").rename(program)
    assert serving.cli("start", "good").returncode == 0


@pytest.mark.skipif(not IS_LINUX, reason="Linux only")
def test_limits_are_refused_where_they_cannot_be_set() -> None:
    """Where these tests run, the cgroup is not the controller's own."""
    source = (
        "from trio_supervisor import Application, Command\n"
        'application = Application([Command("a", ["true"], memory_max="1 GiB")])\n'
    )
    with short_directory() as directory:
        (directory / "service.py").write_text(source)
        for verb in ("check", "serve"):
            refused = run_cli(verb, "service.py", directory=directory)
            assert refused.returncode == 10
            assert (
                f"services[0].memory_max: a: cannot set memory_max={2**30}: "
            ) in refused.stderr
