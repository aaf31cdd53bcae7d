"""Test the one-line descriptions of crashes."""

from __future__ import annotations

import pytest

from trio_supervisor.policy.crash_text import (
    describe_crashes,
    describe_delay,
    last_output_line,
    parenthesized,
)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], ""),
        (["", " \t "], ""),
        (["first", "last", " "], "last"),
        (["\x1b[31mred\x1b[0m\ttab\r"], "red tab"),
        (["\x1b[1;38;5;9mno\x1b[2K \x1b]8;;http://x\x1b\\link\x1b]8;;\x07"], "no link"),
        (["fatal", "\x1b[0m\x1b(B"], "fatal"),
        (["x" * 200], "x" * 200),
        (
            [
                "throw err;",
                "Error: Cannot find module '/x.js'",
                "    at Module._load (node:internal/modules/cjs/loader:1038:27)",
                "  code: 'MODULE_NOT_FOUND',",
                "}",
                "",
                "Node.js v20.20.2",
            ],
            "Error: Cannot find module '/x.js'",
        ),
        (["Node.js v20.20.2"], "Node.js v20.20.2"),
        (
            [
                "throw new AppFailure('no port')",
                "^",
                "AppFailure: no port",
                "    at Object.<anonymous> (/x.js:2:7)",
                "    at async run (/x.js:2:23)",
                "",
                "Node.js v22.0.0-pre",
            ],
            "AppFailure: no port",
        ),
        (
            [
                "Error: connect ECONNREFUSED 127.0.0.1:1",
                "    at TCPConnectWrap.afterConnect [as oncomplete] (node:net:1) {",
                "  errno: -111,",
                "}",
            ],
            "Error: connect ECONNREFUSED 127.0.0.1:1",
        ),
        (
            ["Error: no", "    at new Foo (/x.js:1:2)", "at async /x.js:5:3"],
            "Error: no",
        ),
        (["a {", "}"], "}"),
        (
            [
                "Exception in thread main java.lang.IllegalStateException: no port",
                "\tat com.shop.Main.main(Main.java:5)",
                "\t... 12 more",
            ],
            "Exception in thread main java.lang.IllegalStateException: no port",
        ),
        (
            ["a.rb:1:in `f': no (E)", "\tfrom a.rb:5:in `<main>'"],
            "a.rb:1:in `f': no (E)",
        ),
        (["    at Module.load (x.js:1:2)"], "at Module.load (x.js:1:2)"),
        (["x" * 201], "x" * 197 + "..."),
    ],
)
def test_last_output_line_is_one_printable_line(lines: list[str], words: str) -> None:
    assert last_output_line(lines) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0 ms"), (0.3124, "312 ms"), (1.0, "1.0 s"), (59.96, "60 s")],
)
def test_describe_delay_rounds_to_useful_digits(seconds: float, words: str) -> None:
    assert describe_delay(seconds) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exit code 3", "(exit code 3)"),
        (
            "not ready (startup_timeout); retrying",
            "(not ready, startup_timeout; retrying)",
        ),
        ("a (b) (c)", "(a, b, c)"),
        ("call f(x)", "(call f(x))"),
    ],
)
def test_parenthesized_does_not_nest(text: str, words: str) -> None:
    assert parenthesized(text) == words


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"crashes": 1}, "exit code 3"),
        (
            {"crashes": 4, "reason": "exited with code 3", "next_try_in": 12.3},
            "exit code 3, 4 times in a row; next try in 12 s",
        ),
        (
            {"crashes": 2, "reason": "not ready", "last_line": "boom"},
            "not ready, 2 times in a row; last line: boom",
        ),
        (
            {"crashes": 2, "last_line": "boom", "problem": "port 80 is in use by a.0"},
            "exit code 3, 2 times in a row; port 80 is in use by a.0",
        ),
        (
            {
                "crashes": 2,
                "last_exit": "No such file",
                "reason": "failed to start",
            },
            "failed to start: No such file, 2 times in a row",
        ),
    ],
)
def test_describe_crashes_includes_all_that_is_known(
    fields: dict[str, object], words: str
) -> None:
    known: dict[str, object] = {"last_exit": "exit code 3", **fields}
    assert describe_crashes(**known) == words  # type: ignore[arg-type]
