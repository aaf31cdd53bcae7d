"""Serve each example of a web framework, and ask it."""

from __future__ import annotations

import urllib.request

import pytest

from tests.kits.places import EXAMPLES
from tests.kits.serving import PATIENCE, open_serving

EACH = [
    ("web_fastapi", ("fastapi", "uvicorn"), ["web.0", "web.1"], "hello from FastAPI"),
    (
        "web_starlette",
        ("starlette", "hypercorn"),
        ["web.0", "web.1"],
        "hello from Starlette",
    ),
    (
        "web_flask",
        ("flask", "uvicorn", "a2wsgi"),
        ["web.0", "web.1"],
        "hello from Flask",
    ),
    (
        "web_django",
        ("django", "uvicorn", "a2wsgi"),
        ["asgi.0", "wsgi.0"],
        "hello from Django",
    ),
]


@pytest.mark.parametrize(
    ("example", "needed", "workers", "greeting"), EACH, ids=[each[0] for each in EACH]
)
def test_example_answers(
    example: str, needed: tuple[str, ...], workers: list[str], greeting: str
) -> None:
    """Each worker is ready, and one of its service answers."""
    for module in needed:
        pytest.importorskip(module)
    source = (EXAMPLES / f"{example}.py").read_text(encoding="utf-8")
    with open_serving(source, environment={"PORT": "0"}) as serving:
        assert sorted(serving.pids()) == workers
        for name in workers:
            url = serving.worker(name)["status"]
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                assert greeting in answer.read().decode()
        assert serving.terminate() == 0
