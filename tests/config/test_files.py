"""Test how files of variables and secrets are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from trio_supervisor.config.files import (
    read_environment_file,
    read_text,
    read_toml,
    variable_of,
)
from trio_supervisor.config.interpolation import Variable
from trio_supervisor.errors import SpecError, TargetError


def test_environment_file_is_read_with_quotes_and_references(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n# c\nexport B='x # y'\nC=\"${A}\\n\"\nD=\n")
    found = read_environment_file(str(path), ".env")
    assert {name: each.text for name, each in found.items()} == {
        "A": "1",
        "B": "x # y",
        "C": "1\n",
        "D": "",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A=1\n\nPASSWORD secret = '\n", ".env, line 3: expected NAME=value"),
        ("A=1\nB\n", ".env, line 2: B has no value; expected B=value"),
    ],
)
def test_malformed_environment_file_names_line_and_no_value(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / ".env"
    path.write_text(text)
    with pytest.raises(TargetError) as caught:
        read_environment_file(str(path), ".env")
    assert str(caught.value) == message


def test_secret_is_read_from_file_or_credential(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    secret = Variable("s3cret", is_secret=True)
    assert variable_of({"file": "key"}, str(tmp_path), {}, "K") == secret
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert variable_of({"credential": "key"}, "/", environment, "K") == secret


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"file": "gone"}, r"^K\.file: /.*/gone: file not found$"),
        ({"file": 3}, r"^K\.file: expected a string, got 3$"),
        ({"fil": "x"}, r"^K: expected \{ file = .* \}, got fil$"),
        ({}, r"^K: expected .*, got no key$"),
        ({"credential": "a/b"}, r"^K\.credential: expected the name of a credential"),
        ({"credential": "k"}, r"CREDENTIALS_DIRECTORY is not set; systemd sets it"),
        ({"file": "zero"}, r"^K\.file: /.*/zero: contains a NUL character$"),
        (True, r"^K: expected a string, .*, got a value of type bool$"),
        (["s3cret"], r"^K: expected a string, .*, got a value of type list$"),
    ],
)
def test_bad_secret_raises_without_showing_it(
    tmp_path: Path, value: Any, message: str
) -> None:
    (tmp_path / "zero").write_bytes(b"s3cret\0")
    with pytest.raises(SpecError, match=message) as caught:
        variable_of(value, str(tmp_path), {}, "K")
    assert "s3cret" not in str(caught.value)


def test_unreadable_file_raises(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"^x: file not found$"):
        read_text(str(tmp_path / "gone"), "x")
    with pytest.raises(TargetError, match=r"^x: is a directory$"):
        read_text(str(tmp_path), "x")
    (tmp_path / "latin").write_bytes(b"a = 1\nb = '\xe9'")
    with pytest.raises(TargetError, match=r"^x, line 2: not UTF-8$"):
        read_text(str(tmp_path / "latin"), "x")
    (tmp_path / "large").write_bytes(b"x" * 11)
    with pytest.raises(TargetError, match=r"^x: not a file of at most 10 bytes$"):
        read_text(str(tmp_path / "large"), "x", 10)
    os.mkfifo(tmp_path / "fifo")
    read_text(str(tmp_path / "fifo"), "x")  # does not block


def test_table_of_toml_has_its_own_paths_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\nname = "x"\n\n[tool.a]\nb = 1\n')
    file = read_toml(str(path), "pyproject.toml", ("tool", "a"))
    assert file.values == {"b": 1}
    assert file.place(("b",)) == "pyproject.toml, line 5"
    assert file.place(("c",)) == "pyproject.toml, line 4"
    with pytest.raises(TargetError, match=r"^p: has no table \[tool\.b\]$"):
        read_toml(str(path), "p", ("tool", "b"))
