"""An application that patches the standard library is rejected with one line."""

from __future__ import annotations

import select
from types import SimpleNamespace

import pytest

from tests.kits.serving import run_cli, short_directory
from trio_supervisor.process.imports.monkey_patches import _culprit

_SERVICE = """
import {library}
from trio_supervisor import Application, Command
{call}
application = Application(services=[Command("c", ["true"])])
"""

# Stand-ins: what these libraries do to `select`, and the traces that they leave.
_GEVENT = """
saved = {}
def patch_all():
    import select, socket
    saved["select"] = {"select": select.select}
    select.select = lambda *_: ([], [], [])
    del select.epoll, select.poll
    socket.socket = type("socket", (), {})
"""
_EVENTLET = """
already_patched = {}
def monkey_patch():
    import select
    already_patched["select"] = True
    select.select = lambda *_: ([], [], [])
    del select.epoll
"""


@pytest.mark.parametrize(
    ("library", "call", "files", "named"),
    [
        pytest.param(
            "gevent.monkey",
            "gevent.monkey.patch_all()",
            {"gevent/__init__.py": "", "gevent/monkey.py": _GEVENT},
            "gevent.monkey.patch_all",
            id="gevent",
        ),
        pytest.param(
            "gevent.monkey",
            "gevent.monkey.patch_all(); raise AttributeError('of the patch')",
            {"gevent/__init__.py": "", "gevent/monkey.py": _GEVENT},
            "gevent.monkey.patch_all",
            id="gevent, and the import fails",
        ),
        pytest.param(
            "eventlet.patcher",
            "eventlet.patcher.monkey_patch()",
            {"eventlet/__init__.py": "", "eventlet/patcher.py": _EVENTLET},
            "eventlet.monkey_patch",
            id="eventlet",
        ),
        pytest.param(
            "greenish",
            "greenish.patch()",
            {
                "greenish.py": "import select\n"
                "def wait(*_): return [], [], []\n"
                "def patch(): select.select = wait\n"
            },
            "code of greenish",
            id="another",
        ),
    ],
)
def test_serve_patched_application_exits_with_14(
    library: str, call: str, files: dict[str, str], named: str
) -> None:
    with short_directory() as directory:
        source = _SERVICE.format(library=library, call=call)
        for name, text in {**files, "service.py": source}.items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text(text)
        done = run_cli("serve", "service.py", directory=directory)
    assert done.returncode == 14
    assert named in done.stderr
    assert "as a Command" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_culprit_of_imported_library_without_patch_is_none() -> None:
    modules = {
        "gevent.monkey": SimpleNamespace(saved={}),
        "eventlet.patcher": SimpleNamespace(already_patched={}),
    }
    assert _culprit(modules, select.select) is None
