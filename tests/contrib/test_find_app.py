"""Names of web applications, and the errors of wrong ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_supervisor.contrib.find_app import find_app, make_app, split_name
from trio_supervisor.errors import SpecError

SHOP = """
VERSION = 1

def app(): ...

class pages:
    @staticmethod
    def app(): ...

def make_app():
    return app
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make a package ``shop_of_tests`` with a module ``web`` importable."""
    package = tmp_path / "shop_of_tests"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "web.py").write_text(SHOP, encoding="utf-8")
    (package / "broken.py").write_text("1 / 0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.startswith("shop_of_tests")]:
        del sys.modules[name]


@pytest.mark.usefixtures("shop")
def test_application_is_found_by_module_and_attribute() -> None:
    app = find_app("shop_of_tests.web:app")
    assert app is sys.modules["shop_of_tests.web"].app
    assert find_app("shop_of_tests.web:pages.app") is not app


@pytest.mark.usefixtures("shop")
def test_factory_is_called_only_to_make_the_application() -> None:
    module_app = find_app("shop_of_tests.web:app")
    assert find_app("shop_of_tests.web:make_app()") is not module_app
    assert make_app("shop_of_tests.web:make_app()") is module_app
    assert make_app("shop_of_tests.web:app") is module_app


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "shop_of_tests.web:ap",
            "app: shop_of_tests.web has no 'ap' (did you mean 'app'?)",
        ),
        (
            "shop_of_tests.web:pages.apps",
            "app: shop_of_tests.web has no 'apps' (did you mean 'app'?)",
        ),
        (
            "shop_of_tests.wep:app",
            "app: no module named 'shop_of_tests.wep' (did you mean 'web'?)",
        ),
        (
            "shop_of_test.web:app",
            "app: no module named 'shop_of_test' (did you mean 'shop_of_tests'?)",
        ),
        (
            "shop_of_tests.web:VERSION",
            "app: shop_of_tests.web:VERSION is of type int, expected an application "
            "to call",
        ),
    ],
    ids=["attribute", "nested", "module", "package", "not callable"],
)
def test_wrong_name_is_answered_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        find_app(name)
    assert str(caught.value) == message


@pytest.mark.usefixtures("shop")
def test_import_that_fails_is_named_by_its_line() -> None:
    with pytest.raises(SpecError, match=r"app: .*broken\.py, line 1: ZeroDivision"):
        find_app("shop_of_tests.broken:app")


@pytest.mark.parametrize("name", ["shop", "shop:", ":app", "shop.py:app", "a b:c", 3])
def test_text_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=r"app: expected 'package\.module:attribute'"):
        split_name(name)
