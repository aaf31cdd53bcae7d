"""Rendering lines of children."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kits.output import block
from trio_supervisor.process.output.blocks import MAX_LINE, Block
from trio_supervisor.process.output.rendering import Form, notice_of, renderer_of

FORMS: list[Form] = ["text", "json", "raw", "journal"]


def render(form: Form, rendered: Block, name: str = "worker.0", **how: bool) -> str:
    steps = renderer_of(form, name, **how)(rendered)
    return b"".join(map(bytes, steps)).decode()


def terminal(line: bytes) -> str:
    shown = render("text", block(line + b"\n"), "w", is_terminal=True)
    return shown.removeprefix("w            | ").removesuffix("\n")


def fields(rendered: Block) -> list[dict[str, Any]]:
    return [json.loads(line) for line in render("json", rendered).splitlines()]


def test_render_text_prefixes_name() -> None:
    """Padded, so that lines of different children are aligned."""
    text = render("text", block(b"one\n\nthree"))
    assert text == "worker.0     | one\nworker.0     | \nworker.0     | three\n"


def test_render_journal_begins_with_level() -> None:
    """That of the line, whose prefix is moved there."""
    lines = render("journal", block(b"<3>oops\nfine\nha", is_cut=True)).splitlines()
    assert lines == [
        "<3>worker.0     | oops",
        "<6>worker.0     | fine",
        "<6>worker.0     | ha…",
    ]


def test_render_text_name_has_stable_colour() -> None:
    """The colour is the same in each run."""
    names = [f"worker.{number}" for number in range(20)]
    shown = [render("text", block(b"x\n"), name, has_colours=True) for name in names]
    again = [render("text", block(b"x\n"), name, has_colours=True) for name in names]
    assert shown == again
    matches = [re.fullmatch("\x1b\\[(\\d+)m.*\\|\x1b\\[0m x\n", line) for line in shown]
    assert len({match[1] for match in matches if match}) > 3
    assert all(matches)


def test_render_json_has_origin_and_time() -> None:
    """With the same keys as the log."""
    assert fields(block(b'a "b"\n\xe9\n', time=1709251198.007, stream="stderr")) == [
        {
            "time": "2024-02-29T23:59:58.007Z",
            "name": "worker.0",
            "pid": 4711,
            "generation": 2,
            "stream": "stderr",
            "message": message,
        }
        for message in ('a "b"', "\\xe9")
    ]


def test_render_marks_cut_lines() -> None:
    """In JSON and in text; a file has the exact bytes."""
    long = block(MAX_LINE * b"x" + b"y\n")
    assert [line.get("truncated") for line in fields(long)] == [True, None]
    first, second = render("text", long).splitlines()
    assert first.endswith("xx…")
    assert second.endswith("| y")
    assert render("raw", long).encode() == long.data


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        pytest.param(b"plain\ttext", "plain\ttext", id="plain"),
        pytest.param("é€😀".encode(), "é€😀", id="text of any language"),
        pytest.param(b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m\x1b[0m", id="colours"),
        pytest.param(b"\x1b[1m", "\x1b[1m\x1b[0m", id="a colour that is left on"),
        pytest.param(b"\x1b[2J", "\\x1b[2J", id="clears the screen"),
        pytest.param(b"\x1b]0;title\x07", "\\x1b]0;title\\x07", id="sets the title"),
        pytest.param(b"\x1b[6n", "\\x1b[6n", id="asks the terminal"),
        pytest.param(b"secret\roverwritten", "secret\\x0doverwritten", id="return"),
        pytest.param("\x9b2J".encode(), "\\x9b2J", id="a control character of C1"),
        pytest.param(b"\x9b2J", "\\x9b2J", id="the same as one byte"),
        pytest.param("a\u202eb".encode(), "a\\u202eb", id="turns the text around"),
        pytest.param(b"\xff\x00", "\\xff\\x00", id="binary"),
    ],
)
def test_render_for_terminal_keeps_text_and_colours_only(
    line: bytes, shown: str
) -> None:
    """A child must not overwrite the lines of others."""
    assert terminal(line) == shown


@given(st.binary(max_size=300))
def test_render_for_terminal_is_printable_for_any_bytes(line: bytes) -> None:
    """Without colour sequences, the result is printable."""
    shown = terminal(line.replace(b"\n", b""))
    rest = re.sub("\x1b\\[[0-9;:]*m", "", shown).replace("\t", "")
    assert not re.search("[\x00-\x1f\x7f-\x9f]", rest)


@given(st.lists(st.binary(max_size=40), max_size=600))
def test_render_has_each_line_once(lines: list[bytes]) -> None:
    """Over any number of steps."""
    lines = [line.replace(b"\n", b"").rstrip(b"\r") for line in lines]
    data = b"".join(line + b"\n" for line in lines)
    expected = [line.decode("utf-8", "backslashreplace") for line in lines]
    assert [line["message"] for line in fields(block(data))] == expected
    text = b"".join(b"w            | " + line + b"\n" for line in lines)
    assert b"".join(map(bytes, renderer_of("text", "w")(block(data)))) == text


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("line", [b"\n", b"x" * 9000 + b"\n"], ids=["short", "long"])
def test_render_steps_are_short(form: Form, line: bytes) -> None:
    """Other tasks may run between two steps."""
    steps = [bytes(s) for s in renderer_of(form, "w")(block(line * 2000))]
    assert max(step.count(b"\n") for step in steps) <= 200
    assert max(map(len, steps)) < 64 * 1024


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("count", "words"), [(1, "1 line dropped"), (12, "12 lines dropped")]
)
def test_notice_counts_dropped_lines(form: Form, count: int, words: str) -> None:
    """On a line of its own."""
    text = notice_of(form)(count).decode()
    assert words in text
    assert text.count("\n") == text.endswith("\n") == 1
    if form == "json":
        parsed = json.loads(text)
        assert (parsed["level"], parsed["dropped"]) == ("warning", count)
