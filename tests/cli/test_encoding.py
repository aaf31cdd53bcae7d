"""Standard streams whose encoding lacks characters."""

from __future__ import annotations

import io
import sys

import pytest

from trio_supervisor.cli.encoding import guarded_streams, is_unicode
from trio_supervisor.cli.output import to_json


def stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding, newline="\n")


@pytest.mark.parametrize(
    ("encoding", "text", "written"),
    [
        ("ascii", "a ├─ b ⟶ c …", b"a +- b -> c ..."),
        ("ascii", "é €", b"\\xe9 \\u20ac"),
        ("latin-1", "é €", b"\xe9 \\u20ac"),
        ("utf-8", "é\udcff", b"\xc3\xa9\\udcff"),
        ("ascii", "100 %", b"100 %"),
        ("utf-8", "\x1b]0;title\x07\r\x9b2J", b"\\x1b]0;title\\x07\\x0d\\x9b2J"),
        ("utf-8", "a\tb\nc", b"a\tb\nc"),
    ],
)
def test_guarded_streams_replace_unencodable_characters(
    monkeypatch: pytest.MonkeyPatch, encoding: str, text: str, written: bytes
) -> None:
    output = stream(encoding)
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", stream(encoding))

    with guarded_streams():
        print(text, end="")

    assert isinstance(output.buffer, io.BytesIO)
    assert output.buffer.getvalue() == written


@pytest.mark.parametrize(
    ("encoding", "json"),
    [("utf-8", '{"a": "é"}'), ("UTF8", '{"a": "é"}'), ("latin-1", '{"a": "\\u00e9"}')],
)
def test_to_json_escapes_unless_stdout_is_utf8(
    monkeypatch: pytest.MonkeyPatch, encoding: str, json: str
) -> None:
    monkeypatch.setattr(sys, "stdout", stream(encoding))

    assert to_json({"a": "é"}) == json


@pytest.mark.parametrize("encoding", [None, "ascii", "utf-16", "no such encoding"])
def test_is_unicode_rejects_other_encodings(encoding: str | None) -> None:
    assert not is_unicode(encoding)
