"""Finding the code that a function can reach, in files with several services."""

from __future__ import annotations

import ast
import textwrap

import pytest

from trio_supervisor.process.code.reachable import reachable

FILE = """
import os
import logging
from jobs import nightly
from helpers import render as draw

LIMIT = 10
OTHER = 20
log = logging.getLogger("web")

def shared(): return LIMIT

def web(): return draw(shared(), log)

def job(): return os.getpid() + OTHER

async def later():
    from plugins import extra
    return extra()

application = Application([Service("web", web), Service("nightly", nightly)])

if __name__ == "__main__":
    web()
"""


def texts(source: str, name: str, declarations: tuple[str, ...] = ()) -> list[str]:
    tree = ast.parse(textwrap.dedent(source))
    found = reachable(tree, name, declarations)
    return [ast.unparse(node).splitlines()[0] for node in found]


def test_reachable_statements_used_by_function() -> None:
    """Directly or indirectly; a declaration that names the function does not count."""
    assert texts(FILE, "web", ("application",)) == [
        "import logging",
        "from helpers import render as draw",
        "LIMIT = 10",
        "log = logging.getLogger('web')",
        "def shared():",
        "def web():",
    ]
    assert texts(FILE, "job", ("application",)) == [
        "import os",
        "OTHER = 20",
        "def job():",
    ]
    assert texts(FILE, "later", ("application",)) == ["async def later():"]


@pytest.mark.parametrize(
    "statement",
    [
        "print('imported')",
        "import signals_of_the_application",
        "_ = connect()",
        "settings['a'] = 1",
        "settings.a = 1",
        "settings += [1]",
        "for i in range(3): names.append(i)",
        "if os.name == 'posix': x = 1",
        "with open('x') as file: text = file.read()",
        "try:\n    import fast\nexcept ImportError:\n    fast = None",
        "@app.route('/')\ndef view(): pass",
        "@register\nclass Handler: pass",
        "class Model(Base): pass",
        "class Odd(metaclass=Meta): pass",
        "del settings",
        "assert setup()",
    ],
)
def test_reachable_statement_with_effect(statement: str) -> None:
    """It may change anything, such as a table that the function reads."""
    source = f"{statement}\ndef web(): pass\n"
    assert texts(source, "web")[0] == ast.unparse(ast.parse(statement)).splitlines()[0]


@pytest.mark.parametrize(
    "statement",
    [
        "'''A docstring.'''",
        "LIMIT = 10",
        "def other(): pass",
        "@contextmanager\ndef other(): yield",
        "@functools.lru_cache(maxsize=1)\ndef other(): pass",
        "@attrs.frozen(kw_only=True)\nclass Point: x: int",
        "class Wrong(Exception): pass",
        "class Row(typing.NamedTuple): x: int",
        "if __name__ == '__main__': main()",
    ],
)
def test_reachable_excludes_unused_definitions(statement: str) -> None:
    assert texts(f"{statement}\ndef web(): pass\n", "web") == ["def web():"]


@pytest.mark.parametrize(
    "body",
    ["return eval('other')()", "return globals()['other']()", "exec(CODE)"],
)
def test_reachable_everything_with_dynamic_lookup(body: str) -> None:
    source = f"def other(): pass\ndef web(): {body}\n"
    assert texts(source, "web") == ["def other():", "def web():"]


def test_reachable_everything_with_star_import() -> None:
    source = "from helpers import *\ndef other(): pass\ndef web(): return thing()\n"
    assert len(texts(source, "web")) == 3


def test_reachable_everything_if_function_is_not_defined() -> None:
    source = "a = 1\nweb = partial(other, 1)\n"
    assert len(texts(source, "web")) == 2
    assert len(texts(source, "missing")) == 2


def test_reachable_class_includes_names_used_by_methods() -> None:
    source = """
        LIMIT = 1
        def helper(): return LIMIT
        class Worker:
            def run(self): return helper()
        def web(): Worker().run()
    """
    assert len(texts(source, "web")) == 4


def test_reachable_rebound_name_includes_all_bindings() -> None:
    source = "def a(): pass\ndef a(): return 1\nx = 1\nx = 2\ndef web(): a(); x\n"
    assert len(texts(source, "web")) == 5


def test_reachable_names_in_strings_count() -> None:
    """Such as annotations, and names for `getattr`."""
    source = "class Row: pass\ndef web(x: 'Row'): pass\n"
    assert len(texts(source, "web")) == 2
