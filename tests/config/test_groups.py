"""Test where groups of a configuration stand in the tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.configured import configured
from trio_supervisor.errors import SpecError

SERVICES = "".join(f'[services.{name}]\ncommand = "x"\n' for name in "abcd")


def test_group_stands_where_its_first_child_is(tmp_path: Path) -> None:
    text = (
        f'{SERVICES}[groups.outer]\nchildren = ["inner", "b"]\n'
        '[groups.inner]\nchildren = ["d"]\n[groups.empty]\nchildren = []\n'
    )
    root = configured(tmp_path, text).application.root
    assert repr(root).replace("Command", "") == (
        "Group([('a', ['x'], count=1), Group([Group([('d', ['x'], count=1)], "
        "strategy='one_for_one', name='inner'), ('b', ['x'], count=1)], "
        "strategy='one_for_one', name='outer'), ('c', ['x'], count=1), Group([], "
        "strategy='one_for_one', name='empty')], strategy='one_for_one')"
    )


def test_groups_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    groups = "".join(
        f'[groups.g{number}]\nchildren = ["g{number + 1}"]\n' for number in range(2000)
    )
    text = f"{groups}[groups.g2000]\nchildren = []\n"
    with pytest.raises(SpecError) as caught:
        configured(tmp_path, text)
    problem = "groups.g30: groups nested deeper than 30 levels"
    assert str(caught.value) == f"supervisor.toml, line 61: {problem}"
