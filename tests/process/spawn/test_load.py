"""Targets, good and bad: each mistake is one error that names the place."""

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
    """A working directory, and an interpreter that forgets what was imported."""
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
    """The message of the `TargetError` that *target* leads to, on one line."""
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
def test_a_target_is_a_place_and_a_name(target: str, where: str, name: str) -> None:
    assert split_target(target) == (where, name)


@pytest.mark.parametrize(
    ("where", "expected"),
    [("service.py", True), ("dir/service", True), ("module", False), ("a.b", False)],
)
def test_a_path_ends_in_py_or_has_a_slash(where: str, expected: bool) -> None:
    assert is_path(where) == expected


def test_an_absolute_target_means_the_same_anywhere(directory: Path) -> None:
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
def test_a_good_target_is_loaded(directory: Path, target: str, name: str) -> None:
    write(directory, GOOD)
    assert load_application(target).name == name


def test_an_absolute_path_is_loaded_from_anywhere(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(directory, GOOD)
    monkeypatch.chdir("/")
    assert load_application(str(path)).name == "first"


def test_a_file_imports_its_neighbours_as_a_script_does(directory: Path) -> None:
    write(directory, GOOD, "deep/neighbour_file.py")
    write(directory, "from neighbour_file import application\n", "deep/service_file.py")
    assert load_application("deep/service_file.py").name == "first"


def test_a_module_of_a_package_is_loaded(directory: Path) -> None:
    write(directory, "", "some_package/__init__.py")
    write(directory, GOOD, "some_package/service_file.py")
    assert load_application("some_package.service_file:other").name == "second"


def test_a_target_loaded_twice_is_run_once(directory: Path) -> None:
    write(directory, GOOD)
    assert load_application("service_file.py") is load_application("service_file.py")


@pytest.mark.parametrize("name", ["json.py", "trio.py"])
def test_a_file_may_be_called_like_a_loaded_module(directory: Path, name: str) -> None:
    write(directory, GOOD, name)
    module = sys.modules[Path(name).stem]
    assert load_application(name).name == "first"
    assert sys.modules[Path(name).stem] is module


@pytest.mark.parametrize(
    ("target", "words"),
    [
        pytest.param("absent.py", "absent.py: the file does not exist", id="no file"),
        pytest.param("/", "/: the file is a directory", id="a directory"),
        pytest.param("./", "./: the file is a directory", id="the current directory"),
        pytest.param("absent", "there is no module 'absent'", id="no module"),
        pytest.param("absent.sub", "there is no module 'absent'", id="no package"),
        pytest.param("json.absent", "no module 'json.absent'", id="no submodule"),
        pytest.param(":app", "names no file and no module", id="no place"),
        pytest.param("", "names no file and no module", id="empty"),
        pytest.param("service-file", "neither a path ending in .py", id="no name"),
        pytest.param("notes/text", "notes/text: not a Python file", id="no Python"),
        pytest.param("service_file.py:absent", "has no 'absent'", id="no attribute"),
        pytest.param("service_file.py:Settings.no", "has no 'Settings.no'", id="deep"),
        pytest.param("service_file.py:Settings", "but of type type", id="a class"),
        pytest.param("service_file.py:number", "but of type int", id="a number"),
    ],
)
def test_a_bad_target_is_named(directory: Path, target: str, words: str) -> None:
    write(directory, GOOD + "number = 7\n")
    write(directory, "hello", "notes/text")
    assert words in refusal(target)


def test_what_could_have_been_meant_is_said(directory: Path) -> None:
    write(directory, GOOD)
    message = refusal("service_file.py:app")
    assert "service_file.py:application, service_file.py:other" in message


def test_what_to_write_is_said_where_there_is_nothing(directory: Path) -> None:
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
def test_a_file_that_cannot_be_imported_is_blamed_by_line(
    directory: Path, target: str, text: str, place: int, words: str
) -> None:
    write(directory, text)
    message = refusal(target)
    assert message.startswith(f"service_file.py, line {place}: ")
    assert words in message


def test_the_line_is_that_of_the_innermost_file(directory: Path) -> None:
    write(
        directory, "def build():\n    raise OSError('no disk')\n", "neighbour_file.py"
    )
    write(directory, "import neighbour_file\nneighbour_file.build()\n")
    message = refusal("service_file.py")
    assert message == "neighbour_file.py, line 2: OSError: no disk"


def test_a_missing_module_of_a_file_of_the_same_beginning_is_not_the_target(
    directory: Path,
) -> None:
    """``service_file`` is there; what it imports is not."""
    write(directory, "import service_file_missing\n")
    message = refusal("service_file")
    assert message.startswith("service_file.py, line 1: ModuleNotFoundError")


def test_an_error_of_several_lines_is_said_on_one(directory: Path) -> None:
    write(directory, "raise ValueError('one\\ntwo')\n")
    assert refusal("service_file.py") == "service_file.py, line 1: ValueError: one two"


@pytest.mark.parametrize("target", ["service_file.py", "service_file"])
def test_a_mistake_in_a_declaration_names_file_line_and_field(
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


def test_a_file_elsewhere_is_named_in_full(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(directory, "1 / 0\n")
    write(directory, "", "elsewhere/x.py")
    monkeypatch.chdir(directory / "elsewhere")
    assert refusal(str(path)).startswith(f"{path}, line 1: ")


@pytest.mark.parametrize("target", ["service_file.py", "service_file"])
def test_a_file_that_failed_can_be_tried_again(directory: Path, target: str) -> None:
    write(directory, "1 / 0\n")
    refusal(target)
    write(directory, GOOD)
    assert load_application(target).name == "first"


def test_ctrl_c_during_an_import_is_no_mistake_in_the_file(directory: Path) -> None:
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
def test_a_file_that_is_no_text_is_a_bad_target(directory: Path, data: bytes) -> None:
    (directory / "service_file.py").write_bytes(data)
    assert "service_file.py" in refusal("service_file.py")


def test_a_file_that_may_not_be_read_is_a_bad_target(directory: Path) -> None:
    """Root reads everything, so here: a file whose reading fails."""
    (directory / "service_file.py").symlink_to("/proc/self/mem")
    assert "service_file.py" in refusal("service_file.py")
