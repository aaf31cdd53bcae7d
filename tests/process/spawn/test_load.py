"""Loading targets: each mistake is one error that names the place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_supervisor.errors import SpecError, TargetError
from trio_supervisor.process.spawn.code_source import (
    absolute_target,
    is_path,
    split_target,
)
from trio_supervisor.process.spawn.load import load_application

GOOD = """
from trio_supervisor import Application, Command

application = Application([Command("sleep", ["sleep", "1"])], name="first")
other = Application([], name="second")

class Settings:
    nested = Application([], name="third")
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory; modules imported by the test are unloaded at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is None or Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


def write(directory: Path, text: str, name: str = "service_file.py") -> Path:
    path = directory / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(target: str) -> str:
    """Return the one-line message of the `TargetError` for *target*."""
    with pytest.raises(TargetError) as caught:
        load_application(target)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("target", "where", "name"),
    [
        ("service.py", "service.py", "application"),
        ("service.py:app", "service.py", "app"),
        ("service.py:", "service.py", "application"),
        ("a/b:c.py:app", "a/b:c.py", "app"),
        ("package.module:app.sub", "package.module", "app.sub"),
        ("module", "module", "application"),
    ],
)
def test_split_target(target: str, where: str, name: str) -> None:
    assert split_target(target) == (where, name)


@pytest.mark.parametrize(
    ("where", "expected"),
    [("service.py", True), ("dir/service", True), ("module", False), ("a.b", False)],
)
def test_is_path(where: str, expected: bool) -> None:
    assert is_path(where) == expected


def test_absolute_target_is_independent_of_directory(directory: Path) -> None:
    assert absolute_target("service.py") == f"{directory}/service.py:application"
    assert absolute_target("a.b:app") == "a.b:app"


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("service_file.py", "first"),
        ("./service_file.py", "first"),
        ("service_file.py:", "first"),
        ("service_file.py:other", "second"),
        ("service_file.py:Settings.nested", "third"),
        ("service_file", "first"),
        ("service_file:other", "second"),
    ],
)
def test_load_application(directory: Path, target: str, name: str) -> None:
    write(directory, GOOD)
    assert load_application(target).name == name


def test_load_application_absolute_path_from_other_directory(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(directory, GOOD)
    monkeypatch.chdir("/")
    assert load_application(str(path)).name == "first"


def test_load_application_file_can_import_neighbours(directory: Path) -> None:
    write(directory, GOOD, "deep/neighbour_file.py")
    write(directory, "from neighbour_file import application\n", "deep/service_file.py")
    assert load_application("deep/service_file.py").name == "first"


def test_load_application_module_of_package(directory: Path) -> None:
    write(directory, "", "some_package/__init__.py")
    write(directory, GOOD, "some_package/service_file.py")
    assert load_application("some_package.service_file:other").name == "second"


def test_load_application_twice_imports_once(directory: Path) -> None:
    write(directory, GOOD)
    assert load_application("service_file.py") is load_application("service_file.py")


@pytest.mark.parametrize("name", ["json.py", "trio.py"])
def test_load_application_file_named_like_loaded_module(
    directory: Path, name: str
) -> None:
    write(directory, GOOD, name)
    module = sys.modules[Path(name).stem]
    assert load_application(name).name == "first"
    assert sys.modules[Path(name).stem] is module


@pytest.mark.parametrize(
    ("target", "words"),
    [
        pytest.param("absent.py", "absent.py: file not found", id="no file"),
        pytest.param("/", "/: is a directory", id="a directory"),
        pytest.param("./", "./: is a directory", id="the current directory"),
        pytest.param("absent", "no module named 'absent'", id="no module"),
        pytest.param("absent.sub", "no module named 'absent'", id="no package"),
        pytest.param("json.absent", "no module named 'json.absent'", id="no submodule"),
        pytest.param(":app", "names neither a file nor a module", id="no place"),
        pytest.param("", "names neither a file nor a module", id="empty"),
        pytest.param("service-file", "neither a path ending in .py", id="no name"),
        pytest.param("notes/text", "notes/text: not a Python file", id="no Python"),
        pytest.param("service_file.py:absent", "has no 'absent'", id="no attribute"),
        pytest.param("service_file.py:Settings.no", "has no 'Settings.no'", id="deep"),
        pytest.param("service_file.py:Settings", "is of type type, ex", id="a class"),
        pytest.param("service_file.py:number", "is of type int, exp", id="a number"),
    ],
)
def test_load_application_bad_target_error(
    directory: Path, target: str, words: str
) -> None:
    write(directory, GOOD + "number = 7\n")
    write(directory, "hello", "notes/text")
    assert words in refusal(target)


def test_load_application_error_lists_applications(directory: Path) -> None:
    write(directory, GOOD)
    message = refusal("service_file.py:app")
    assert "service_file.py:application, service_file.py:other" in message


def test_load_application_without_application_shows_example(directory: Path) -> None:
    write(directory, "x = 1\n")
    assert "application = Application(services=[...])" in refusal("service_file.py")


@pytest.mark.parametrize("target", ["service_file.py", "service_file"])
@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        pytest.param("x = 1\ny = (\n", 2, "SyntaxError: ", id="syntax"),
        pytest.param("if 1:\n\tx = 1\n        y = 2\n", 3, "SyntaxError", id="tabs"),
        pytest.param("x = 1\n1 / 0\n", 2, "ZeroDivisionError: division", id="raises"),
        pytest.param("\n\nimport absent_x\n", 3, "ModuleNotFoundError", id="import"),
        pytest.param("import sys\nsys.exit(3)\n", 2, "SystemExit: 3", id="exits"),
        pytest.param("raise ValueError\n", 1, "ValueError", id="no message"),
        pytest.param(
            "from trio_supervisor import Command\n"
            "a = Command('a', ['true'], cuont=2)\n",
            2,
            "TypeError: Command.__init__() got an unexpected keyword argument 'cuont'",
            id="unknown keyword argument",
        ),
    ],
)
def test_load_application_failed_import_names_line(
    directory: Path, target: str, text: str, place: int, words: str
) -> None:
    write(directory, text)
    message = refusal(target)
    assert message.startswith(f"service_file.py, line {place}: ")
    assert words in message


def test_load_application_error_names_line_of_innermost_file(directory: Path) -> None:
    write(
        directory, "def build():\n    raise OSError('no disk')\n", "neighbour_file.py"
    )
    write(directory, "import neighbour_file\nneighbour_file.build()\n")
    message = refusal("service_file.py")
    assert message == "neighbour_file.py, line 2: OSError: no disk"


def test_load_application_missing_import_with_same_prefix(
    directory: Path,
) -> None:
    """``service_file`` exists; the module that it imports does not."""
    write(directory, "import service_file_missing\n")
    message = refusal("service_file")
    assert message.startswith("service_file.py, line 1: ModuleNotFoundError")


def test_load_application_multiline_error_is_one_line(directory: Path) -> None:
    write(directory, "raise ValueError('one\\ntwo')\n")
    assert refusal("service_file.py") == "service_file.py, line 1: ValueError: one two"


@pytest.mark.parametrize("target", ["service_file.py", "service_file"])
def test_load_application_spec_error_names_line_and_field(
    directory: Path, target: str
) -> None:
    write(
        directory,
        "from trio_supervisor import Application, Command\n\n"
        "application = Application([\n"
        "    Command('a', ['true'], count=-1),\n"
        "])\n",
    )
    with pytest.raises(SpecError) as caught:
        load_application(target)
    assert str(caught.value).startswith("service_file.py, line 4: count: expected 0")


def test_load_application_error_in_other_directory_shows_full_path(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(directory, "1 / 0\n")
    write(directory, "", "elsewhere/x.py")
    monkeypatch.chdir(directory / "elsewhere")
    assert refusal(str(path)).startswith(f"{path}, line 1: ")


@pytest.mark.parametrize("target", ["service_file.py", "service_file"])
def test_load_application_retry_after_failure(directory: Path, target: str) -> None:
    write(directory, "1 / 0\n")
    refusal(target)
    write(directory, GOOD)
    assert load_application(target).name == "first"


def test_load_application_keyboard_interrupt_propagates(directory: Path) -> None:
    write(directory, "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_application("service_file.py")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"x = '\xff'\n", id="not UTF-8"),
        pytest.param(b"x = 1\0\n", id="a NUL"),
    ],
)
def test_load_application_binary_file_raises_target_error(
    directory: Path, data: bytes
) -> None:
    (directory / "service_file.py").write_bytes(data)
    assert "service_file.py" in refusal("service_file.py")


def test_load_application_unreadable_file_raises_target_error(directory: Path) -> None:
    """Root can read every file, so this one fails to be read instead."""
    (directory / "service_file.py").symlink_to("/proc/self/mem")
    assert "service_file.py" in refusal("service_file.py")
