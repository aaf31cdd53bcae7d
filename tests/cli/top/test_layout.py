"""Test how the width is divided."""

from __future__ import annotations

import pytest

from trio_supervisor.cli.top.layout import layout


@pytest.mark.parametrize("width", [80, 81, 100, 120, 200, 400])
def test_layout_uses_the_width(width: int) -> None:
    sparks, columns = layout(width)
    assert sum(room for _, room in columns) == width - 1  # and the scroll bar
    assert [room for title, room in columns if not title] == [sparks + 1] * 2


def test_layout_of_narrow_terminal_is_that_of_80_columns() -> None:
    assert layout(40).columns[:-1] == layout(80).columns[:-1]
    assert layout(40).columns[-1] == ("STATUS", 8)
