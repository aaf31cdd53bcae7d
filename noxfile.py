"""Run all checks with ``nox``, or a part with ``nox -s tests -- -k wire``."""

from __future__ import annotations

import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests", "docs"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
# Requirements of each peer. supervisord and circus start our interpreter, gunicorn its.
PEERS = {
    "supervisord": ["supervisor"],
    "circus": ["circus"],
    "gunicorn": ["gunicorn", "trio", "uvicorn-worker"],
}
# Material for MkDocs would print a page about MkDocs 2 at each build.
MKDOCS = {"NO_MKDOCS_2_WARNING": "1"}


def _group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PYPROJECT, name))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*_group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, also in tests, benchmarks and examples."""
    session.install("-e.", *_group("types"))
    session.run("mypy")


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests, including those with real processes."""
    session.install("-e.", *_group("tests"))
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(default=False)
def alone(session: nox.Session) -> None:
    """Run the tests that need the whole machine; takes minutes."""
    session.install("-e.", *_group("tests"))
    session.run("python", "-m", "pytest", "-n0", "-m", "alone", *session.posargs)


@nox.session(default=False)
def hunt(session: nox.Session) -> None:
    """Try random examples of every property until one fails."""
    session.install("-e.", *_group("tests"))
    properties = session.posargs or [
        "tests/controller/test_controller_properties.py",
        "tests/policy/test_scheduler_histories.py",
        "tests/testing/test_simulated_network.py",
    ]
    while True:
        session.run(
            *("python", "-m", "pytest", "-q", "-n0", *properties),
            env={"HYPOTHESIS_PROFILE": "hunt"},
        )


@nox.session(default=False)
def cancellations(session: nox.Session) -> None:
    """Cancel and interrupt our blocks at every schedule point; takes half an hour."""
    session.install("-e.", *_group("tests"))
    for subject in session.posargs or ["client", "worker", "controller", "imported"]:
        for how in ("cancel", "interrupt"):
            words = ["-m", "tests.kits.interruptions", subject, how, "all"]
            session.run("python", *words)


@nox.session(default=False)
def failing_calls(session: nox.Session) -> None:
    """Make each system call fail with each error, in each process; takes minutes."""
    session.install("-e.", *_group("tests"))
    session.run(
        *("python", "-m", "pytest", "-q", "-n0", "tests/e2e/test_failing_calls.py"),
        *session.posargs,
        env={"FAILING_CALLS": "all"},
    )


@nox.session(default=False)
def chaos(session: nox.Session) -> None:
    """Hurt 50 real workers under load; ``-- --minutes 5 --seed 7``."""
    session.install("-e.", *_group("tests"))
    session.run("python", "-m", "tests.chaos", *session.posargs)


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Check that nothing grows under load and the usual events; ``-- --minutes 60``."""
    session.install("-e.", *_group("tests"))
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session(default=False, python="3.12")
def fuzz(session: nox.Session) -> None:
    """Fuzz what peers may send; ``-- --seconds 300 stream``."""
    session.install("-e.", *_group("fuzz"))
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session(default=False)
def mutations(session: nox.Session) -> None:
    """Check that a test fails with each bug of tests/mutations/; takes minutes."""
    session.install("-e.", *_group("tests"))
    session.run("python", "-m", "tests.mutations", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/; a dead link is an error."""
    session.install(*_group("docs"))
    session.run("mkdocs", "build", "--strict", "--quiet", *session.posargs, env=MKDOCS)


@nox.session(default=False)
def docs_serve(session: nox.Session) -> None:
    """Show the documentation at http://127.0.0.1:8000/, and again after each change."""
    session.install(*_group("docs"))
    session.run("mkdocs", "serve", *session.posargs, env=MKDOCS)


@nox.session(default=False)
def reference(session: nox.Session) -> None:
    """Write the pages of docs/ that are generated from the package."""
    session.install("-e.")
    words = session.posargs or ["docs"]
    session.run("python", "-m", "trio_supervisor.reference", *words)


@nox.session(default=False)
def changelog(session: nox.Session) -> None:
    """Show the next part of the changelog; with ``VERSION``, write it."""
    session.install(*_group("changelog"))
    if session.posargs:
        session.run("towncrier", "build", "--yes", "--version", *session.posargs)
    else:
        session.run("towncrier", "build", "--draft", "--version", "Next version")


@nox.session(default=False)
def load(session: nox.Session) -> None:
    """Serve HTTP while workers are replaced, longer than the tests; takes minutes."""
    session.install("-e.", *_group("tests"))
    for example in ("http_trio", "http_asgi"):
        words = session.posargs or ["20", "50"]
        session.run("python", "-m", "tests.e2e.test_http_load", example, *words)


@nox.session(default=False)
def benchmarks(session: nox.Session) -> None:
    """Run the benchmarks against floors and peers; takes minutes to an hour."""
    session.install("-e.")
    environment = {}
    for peer, requirements in PEERS.items():
        place = Path(session.cache_dir, "peers", peer).absolute()
        if not place.exists():
            session.run(sys.executable, "-m", "venv", str(place), external=True)
        pip = str(place / "bin" / "pip")
        session.run(pip, "install", "--quiet", *requirements, external=True)
        environment[f"BENCHMARKS_{peer.upper()}"] = str(place)
    session.run("python", "-m", "benchmarks", *session.posargs, env=environment)
