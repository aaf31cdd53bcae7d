"""Programs that the system cannot execute are found beforehand, and only those.

The oracle is the system: each case is executed, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trio_supervisor.process.spawn.programs import program_problem

SHELL = b"#!/bin/sh\nexit 0\n"
Make = Callable[[Path], None]


def script(content: bytes, mode: int = 0o755, name: str = "program") -> Make:
    """Return a function that writes a program into a directory."""

    def make(directory: Path) -> None:
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(content)
        (directory / name).chmod(mode)

    return make


def elf(change: Callable[[bytearray], None]) -> Make:
    """Return a function that writes a changed copy of a real binary."""

    def make(directory: Path) -> None:
        data = bytearray(Path(os.path.realpath("/bin/true")).read_bytes())
        change(data)
        script(bytes(data))(directory)

    return make


def _other_machine(data: bytearray) -> None:
    data[18:20] = (258 if os.uname().machine != "loongarch64" else 22).to_bytes(
        2, "little"
    )


def _other_loader(data: bytearray) -> None:
    place = data.index(b"/lib", 64, 4096)
    data[place : place + 4] = b"/xyz"


def _object_file(data: bytearray) -> None:
    data[16:18] = (1).to_bytes(2, "little")


def link(target: str) -> Make:
    return lambda directory: (directory / "program").symlink_to(target)


def nothing(_: Path) -> None:
    """Write no program."""


def chain(directory: Path) -> None:
    """Each script is the interpreter of the next."""
    script(b"#!/bin/sh\n", name="0")(directory)
    for number in range(1, 3):
        line = f"#!{directory / str(number - 1)}\n".encode()
        script(line, name=str(number))(directory)
    script(f"#!{directory / '2'}\n".encode())(directory)


BAD = [
    pytest.param(nothing, "does not exist", id="missing"),
    pytest.param(link("gone"), "is a symbolic link to gone, which", id="dead link"),
    pytest.param(lambda d: (d / "program").mkdir(), "is a directory", id="directory"),
    pytest.param(lambda d: os.mkfifo(d / "program", 0o755), "not a regular", id="fifo"),
    pytest.param(
        script(SHELL, 0o644), "is not executable (mode 0644); run chmod +x", id="mode"
    ),
    pytest.param(script(b""), "is empty", id="empty"),
    pytest.param(script(b"echo hello\n"), "has no #! line", id="no #!"),
    pytest.param(script(b"#!\n"), "has an empty #! line", id="empty #!"),
    pytest.param(
        script(b"\xef\xbb\xbf" + SHELL), "begins with a byte-order mark", id="BOM"
    ),
    pytest.param(
        script(b"#!/no/such/python3\n"),
        "names the interpreter /no/such/python3 in its #! line, which does not exist",
        id="interpreter",
    ),
    pytest.param(
        script(b"#! /tmp -x\n"), "the interpreter /tmp in its", id="interpreter: dir"
    ),
    pytest.param(
        script(SHELL.replace(b"\n", b"\r\n")),
        "has CRLF line endings, so its #! line names the interpreter '/bin/sh\\r'",
        id="CRLF",
    ),
    pytest.param(
        script(b"#!/usr/bin/env python3\r\nprint()\r\n"),
        "has CRLF line endings, so its #! line names a program 'python3\\r'",
        id="CRLF behind env",
    ),
    pytest.param(
        script(b"#!/usr/bin/env no-such-python\n"),
        "runs no-such-python through env in its #! line: program 'no-such-python' not",
        id="env",
    ),
    pytest.param(
        script(b"#!/usr/bin/env python3 -u\n"),
        "write #!/usr/bin/env -S python3 -u",
        id="env with options",
    ),
    pytest.param(
        script(b"#!/usr/bin/env -S no-such-python -u\n"), "no-such-python", id="env -S"
    ),
    pytest.param(elf(_other_loader), "needs the dynamic loader /xyz", id="loader"),
    pytest.param(elf(_object_file), "is an object file", id="object file"),
]
GOOD = [
    pytest.param(script(SHELL), id="script"),
    pytest.param(script(b"#! \t/bin/sh \t-e \nexit 0\n"), id="blanks"),
    pytest.param(script(b"#!/usr/bin/env sh\n"), id="env"),
    pytest.param(script(b"#!/usr/bin/env -S sh -e\n"), id="env -S"),
    pytest.param(script(b"#!./own-shell\n"), id="relative interpreter"),
    pytest.param(chain, id="scripts of scripts"),
    pytest.param(elf(lambda data: None), id="binary"),
    pytest.param(link("/bin/true"), id="link"),
]


def _run(directory: Path) -> bool:
    try:
        code = subprocess.run(
            ["./program"], cwd=directory, check=False, capture_output=True
        ).returncode
    except OSError:
        return False
    return code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="formats are Linux's")
@pytest.mark.parametrize(("make", "problem"), BAD)
def test_program_problem_of_unexecutable_program(
    tmp_path: Path, make: Make, problem: str
) -> None:
    make(tmp_path)
    assert not _run(tmp_path)
    found = program_problem("./program", dict(os.environ), str(tmp_path))
    assert problem in found
    assert found.startswith("./program ")


@pytest.mark.skipif(sys.platform != "linux", reason="formats are Linux's")
@pytest.mark.parametrize("make", GOOD)
def test_program_problem_of_executable_program_is_empty(
    tmp_path: Path, make: Make
) -> None:
    script(SHELL, name="own-shell")(tmp_path)
    (tmp_path / "own-shell").unlink()
    (tmp_path / "own-shell").symlink_to(os.path.realpath("/bin/sh"))
    make(tmp_path)
    assert program_problem("./program", dict(os.environ), str(tmp_path)) == ""
    assert _run(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="formats are Linux's")
def test_program_problem_of_binary_for_other_machine(tmp_path: Path) -> None:
    """An emulator for LoongArch is hardly ever registered."""
    elf(_other_machine)(tmp_path)
    found = program_problem("./program", dict(os.environ), str(tmp_path))
    assert not _run(tmp_path)
    assert found.startswith("./program is a binary for ")
    assert found.endswith(f", but this machine is {os.uname().machine}")


@pytest.mark.parametrize("slash", [True, False])
def test_program_problem_searches_path_of_the_program(
    tmp_path: Path, slash: bool
) -> None:
    """Files that cannot be executed are skipped, as the system does."""
    script(SHELL, 0o644, "a/tool")(tmp_path)
    only = {"PATH": f"{tmp_path}/a"}
    found = program_problem("tool", only, None)
    assert found == f"{tmp_path}/a/tool is not executable (mode 0644); run chmod +x"
    script(SHELL, 0o755, "b/tool")(tmp_path)
    both = {"PATH": f"{tmp_path}/a:{tmp_path}/b"}
    assert program_problem("tool", both, None) == ""
    assert program_problem("tool", {"PATH": "b"}, str(tmp_path)) == ""
    assert "program 'tool' not found in PATH (/x)" in program_problem(
        "tool", {"PATH": "/x"}, None
    )
    assert program_problem("sh", {}, None) == ""  # the system's own PATH
    assert "program '' not found" in program_problem("", {}, None)
