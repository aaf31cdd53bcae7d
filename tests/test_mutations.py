"""The planted bugs of ``tests/mutations/`` apply; ``nox -s mutations`` runs them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kits.mutations import PATCHES, apply, read_mutation
from tests.kits.places import ROOT

_PATHS = sorted(PATCHES.glob("*.patch"))


def test_mutations_are_many() -> None:
    """A change that moves code must adapt the patches, not remove them."""
    assert len(_PATHS) >= 40


@pytest.mark.parametrize("path", _PATHS, ids=lambda path: path.stem)
def test_mutation_applies_and_names_a_test(path: Path) -> None:
    """Each patch applies to the package, and names a test that exists."""
    mutation = read_mutation(path)
    file, *names = mutation.caught_by.split("::")
    text = (ROOT / file).read_text(encoding="utf-8")
    assert all(
        re.search(rf"^\s*(async )?(def|class) {name}\b", text, re.M) for name in names
    )
    assert mutation.files
    assert all(name.startswith("trio_supervisor/") for name in mutation.files)
    assert apply(mutation, ROOT, "--check") == ""
