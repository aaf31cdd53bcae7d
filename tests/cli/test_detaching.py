"""Test which keys detach, and which are passed on."""

from __future__ import annotations

import pytest

from trio_supervisor.cli.detaching import DetachKeys


@pytest.mark.parametrize(
    ("typed", "passed", "is_detached"),
    [
        ([b"ls\r"], b"ls\r", False),
        ([b"ls\x1drm"], b"ls", True),
        ([b"a\x10\x11b"], b"a", True),
        ([b"\x10", b"\x11"], b"", True),
        ([b"\x10", b"a"], b"\x10a", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x10\x1d"], b"\x10", True),
        ([b"\x11\x03"], b"\x11\x03", False),
        ([b"\x10"], b"", False),
    ],
)
def test_keys_after_those_that_detach_are_not_passed_on(
    typed: list[bytes], passed: bytes, is_detached: bool
) -> None:
    keys = DetachKeys()
    assert b"".join(map(keys.take, typed)) == passed
    assert keys.is_detached == is_detached
