"""Test options that are declared as attrs fields."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import attrs
import pytest

from trio_supervisor.application import checks
from trio_supervisor.application.fields import (
    Checked,
    checked_later,
    doc_of,
    documented,
    limits_of,
    option,
    options_of,
    unit_of,
)
from trio_supervisor.errors import SpecError


@documented
@attrs.define(slots=False, field_transformer=checked_later)
class Oven(Checked):
    """A class with options."""

    name: str = attrs.field(converter=checks.name, metadata=option("Its name."))
    heat: int = attrs.field(
        default=180,
        kw_only=True,
        converter=checks.integer,
        metadata=option("How hot it gets.", unit="C", least=50, most=250),
    )
    shelves: frozenset[int] = attrs.field(
        default=(1,),
        kw_only=True,
        converter=checks.exit_codes,
        metadata=option("Shelves in use."),
    )
    fuel: str = attrs.field(
        default="gas", kw_only=True, metadata=option("Fuel.", choices=("gas", "wood"))
    )
    is_hot: bool = attrs.field(default=False, init=False)


def test_values_are_kept_as_their_checks_return_them() -> None:
    oven = Oven("agnes", heat=200, shelves=[1, 2, 2])
    assert (oven.name, oven.heat, oven.shelves) == ("agnes", 200, frozenset({1, 2}))


def test_defaults_are_converted() -> None:
    assert Oven("agnes").shelves == {1}


def test_error_names_the_option_and_the_limit() -> None:
    with pytest.raises(SpecError, match=r"^heat: expected 250 or less, got 300$"):
        Oven("agnes", heat=300)


def test_error_names_the_item_of_a_list() -> None:
    with pytest.raises(SpecError, match=r"^shelves\[1\]: expected a whole number"):
        Oven("agnes", shelves=[1, "2"])  # type: ignore[list-item]


def test_option_with_choices_and_no_check_accepts_only_these() -> None:
    assert Oven("agnes", fuel="wood").fuel == "wood"
    with pytest.raises(SpecError, match=r"^fuel: expected one of 'gas', 'wood'"):
        Oven("agnes", fuel="coal")


def test_positional_option_is_checked_first() -> None:
    with pytest.raises(SpecError, match=r"^name: "):
        Oven("no spaces", heat=0)


def test_signature_shows_what_the_checks_accept() -> None:
    parameters = inspect.signature(Oven).parameters
    assert list(parameters) == ["name", "heat", "shelves", "fuel"]
    assert parameters["shelves"].annotation == "Sequence[int]"
    assert parameters["shelves"].default == (1,)
    assert parameters["heat"].kind is inspect.Parameter.KEYWORD_ONLY


def test_declaration_can_be_read() -> None:
    _, heat, *_ = options_of(Oven)
    assert (heat.name, heat.default, unit_of(heat)) == ("heat", 180, "C")
    assert doc_of(heat) == "How hot it gets. From 50 to 250."
    assert limits_of(heat) == {"least": 50, "most": 250}
    assert "is_hot" not in [each.name for each in options_of(Oven)]


def test_docstring_has_the_options() -> None:
    assert Oven.__doc__ is not None
    assert "        heat: How hot it gets. From 50 to 250. [C]\n" in Oven.__doc__


def test_subclass_may_have_a_constructor_of_its_own() -> None:
    class Stove(Oven):
        def __init__(self, names: Sequence[str]) -> None:
            super().__init__(names[0], heat=99)

    assert Stove(["bertha"]).heat == 99
