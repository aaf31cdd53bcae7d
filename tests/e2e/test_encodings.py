"""Verbs print text in any locale and encoding of standard streams, and never fail."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.kits.serving import (
    COMMAND,
    PATIENCE,
    Serving,
    environment_of_children,
    open_serving,
)

# The environment has characters that ASCII lacks, the output bytes that are not UTF-8.
SERVICE = """
from trio_supervisor import Application, Command
application = Application([
    Command("words", ["sh", "-c", "printf 'caf\\\\303\\\\251 \\\\377 ';"
                      "echo $WORD → ünï; exec sleep 1000"],
            environment={"WORD": "čau"}),
])
"""
SHOWN = "café \\xff čau → ünï"
ASCII = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
ENVIRONMENTS = {
    "C locale": {"LC_ALL": "C", "PYTHONIOENCODING": ""},
    "ASCII": ASCII,
    "ASCII streams": {"PYTHONIOENCODING": "ascii"},
    "strict streams": {"PYTHONIOENCODING": "ascii:strict"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "EBCDIC": {"PYTHONIOENCODING": "cp037"},
    "UTF-16": {"PYTHONIOENCODING": "utf-16"},
    "unknown locale": {"LC_ALL": "xx_YY.bogus"},
}


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """A ``serve`` whose own streams are ASCII."""
    with open_serving(SERVICE, environment=ASCII, stdout=subprocess.DEVNULL) as serving:
        yield serving


def run(
    serving: Serving, environment: dict[str, str], *words: str | bytes
) -> subprocess.CompletedProcess[bytes]:
    """Run a verb with *environment*, and return its output as bytes."""
    return subprocess.run(
        [*COMMAND, *words],
        cwd=serving.directory,
        env={**environment_of_children(), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def text(environment: dict[str, str], data: bytes) -> str:
    encoding = environment.get("PYTHONIOENCODING", "").split(":")[0]
    return data.decode(encoding or "utf-8")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_logs_and_status_work_in_any_encoding(serving: Serving, name: str) -> None:
    """Characters that the encoding lacks are replaced; JSON stays valid."""
    environment = ENVIRONMENTS[name]
    logs = run(serving, environment, "logs")
    assert (logs.returncode, logs.stderr) == (0, b"")
    assert "words.0 | caf" in text(environment, logs.stdout)

    as_json = run(serving, environment, "logs", "--json")
    assert (as_json.returncode, as_json.stderr) == (0, b"")
    entry = json.loads(text(environment, as_json.stdout))
    assert entry["message"] == SHOWN

    status = run(serving, environment, "status")
    assert (status.returncode, status.stderr) == (0, b"")
    assert "words.0" in text(environment, status.stdout)


@pytest.mark.parametrize("name", ["ASCII", "unknown locale"])
@pytest.mark.parametrize("word", [b"caf\xc3\xa9", b"\xff\xfe", "č\u202e".encode()])
def test_undecodable_name_is_a_one_line_error(
    serving: Serving, name: str, word: bytes
) -> None:
    """For verbs that take a name, with and without ``--json``."""
    environment = ENVIRONMENTS[name]
    for words in (["restart"], ["thread-dump", "--json"], ["logs"]):
        done = run(serving, environment, *words, word)
        assert b"Traceback" not in done.stderr
        if words != ["logs"]:
            assert done.returncode == 1
            assert len(done.stderr.splitlines()) == 1


def test_ascii_stream_gets_ascii_drawings(serving: Serving) -> None:
    done = run(serving, ENVIRONMENTS["ASCII streams"], "logs")

    assert done.stdout.endswith(b"caf\\xe9 \\xff \\u010dau -> \\xfcn\\xef\n")


def test_undecodable_path_is_reported(serving: Serving) -> None:
    """For a socket and a target that are not UTF-8."""
    for environment in (ENVIRONMENTS["ASCII"], ENVIRONMENTS["latin-1"]):
        ping = run(serving, environment, "ping", "--socket", b"/tmp/\xff.ipc")
        assert (ping.returncode, b"Traceback" in ping.stderr) == (3, False)
        serve = run(serving, environment, "serve", b"/tmp/\xff\xe9.py")
        assert (serve.returncode, b"Traceback" in serve.stderr) == (10, False)
