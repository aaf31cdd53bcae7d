"""Each input that is kept passes, without a fuzzer: a crash once found stays tested."""

from __future__ import annotations

import pytest

from tests.fuzz.corpora import CORPUS, kept_in
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_pass(name: str) -> None:
    paths = kept_in(name)
    assert len(paths) >= 5
    for path in paths:
        try:
            TARGETS[name](path.read_bytes())
        except Exception as exc:
            raise AssertionError(f"{path.name}: {exc!r}") from exc


def test_each_corpus_has_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
