"""Plant bugs in copies of the package, and check that a test fails with each.

A bug is a patch in ``tests/mutations/``. Its first lines name the invariant that it
breaks and the test that catches it::

    Breaks: A restart limit of N allows exactly N restarts.
    Caught by: tests/policy/test_restart.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Final, Literal, TypeAlias, TypeVar

import psutil
from attrs import define, field, frozen

from tests.kits.places import ROOT

PATCHES: Final = ROOT / "tests" / "mutations"
# The slowest test takes some 10 s; with a bug it may hang [s].
_TIMEOUT: Final = 60.0
_COPIED: Final = (
    *("trio_supervisor", "tests", "examples", "docs"),
    *("pyproject.toml", "README.md", "CHANGELOG.md"),
)
# Variable that marks all processes of a test.
_MARK: Final = "TRIO_SUPERVISOR_MUTATIONS"
# Exit codes of pytest.
_PASSED: Final = 0
_FAILED: Final = 1

S = TypeVar("S")
T = TypeVar("T")
Outcome: TypeAlias = Literal["caught", "SURVIVED", "ERROR"]


@frozen(kw_only=True)
class Mutation:
    """One planted bug."""

    path: Path
    breaks: str
    """The invariant that it breaks, in one sentence."""
    caught_by: str
    """The test that fails, in the words of pytest: ``FILE`` or ``FILE::TEST``."""

    @property
    def name(self) -> str:
        """Name of the patch without its suffix."""
        return self.path.stem

    @property
    def files(self) -> list[str]:
        """Paths of the files that it changes, relative to the checkout."""
        text = self.path.read_text(encoding="utf-8")
        return re.findall(r"^\+\+\+ b/(\S+)$", text, re.MULTILINE)


@frozen(kw_only=True)
class Result:
    """What became of one mutation."""

    mutation: Mutation
    outcome: Outcome
    seconds: float
    details: str = ""
    """The end of the output of git or pytest, if it is an error."""

    def __str__(self) -> str:
        match self.outcome:
            case "caught":
                return f"caught {self.mutation.name} ({self.seconds:.1f} s)"
            case "SURVIVED":
                return (
                    f"SURVIVED {self.mutation.name}: Breaks: {self.mutation.breaks} "
                    f"({self.mutation.caught_by} passed)"
                )
            case "ERROR":
                return f"ERROR {self.mutation.name}: {self.details}"


def read_mutation(path: Path) -> Mutation:
    """Return the mutation of one patch.

    Raises:
        ValueError: its first two lines are not ``Breaks: …`` and ``Caught by: …``.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    found = re.fullmatch(
        r"Breaks: (?P<breaks>\S.*)\nCaught by: (?P<caught_by>tests/\S+\.py(::\w+)*)",
        "\n".join(lines[:2]),
    )
    if found is None:
        raise ValueError(f"{path.name} does not begin with 'Breaks:' and 'Caught by:'")
    return Mutation(path=path, **found.groupdict(default=""))


def all_mutations() -> list[Mutation]:
    """Return all mutations, by name."""
    return [read_mutation(path) for path in sorted(PATCHES.glob("*.patch"))]


def apply(mutation: Mutation, directory: Path, *options: str) -> str:
    """Apply a patch in *directory*; return what git reports, empty if it applies.

    Args:
        options: Further options of ``git apply``, such as ``--check``.
    """
    # A repository that the directory is in must not change where paths begin.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment["GIT_CEILING_DIRECTORIES"] = str(directory.parent)
    done = subprocess.run(
        ["git", "apply", "-p1", *options, str(mutation.path)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
    )
    return "" if done.returncode == 0 else done.stderr.strip() or "git apply failed"


@define(eq=False)
class Copy:
    """A copy of the package and its tests, in which one test runs at a time."""

    root: Path
    timeout: float = field(default=_TIMEOUT, kw_only=True)
    """How long a test may take [s]."""

    def run(self, test: str) -> tuple[int | None, str]:
        """Return pytest's exit code and output; None: it took too long."""
        options = ("-x", "-q", "-n0", "-p", "no:cacheprovider", "--tb=short")
        # Byte code is not written: a change within the same second would keep the old.
        environment = {
            **os.environ,
            _MARK: str(self.root),
            "HYPOTHESIS_PROFILE": "mutations",
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        # No pipe: a process that a test leaves behind would keep it open.
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
            pytest = subprocess.Popen(
                [sys.executable, "-m", "pytest", *options, test],
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = pytest.wait(self.timeout)
            except subprocess.TimeoutExpired:
                return None, f"no result within {self.timeout:g} s"
            finally:
                self._kill_all()
                pytest.wait()
            file.seek(0)
            return code, file.read()

    def _kill_all(self) -> None:
        """Kill pytest, and processes of tests: a mutation may leave some behind."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(_MARK) == str(self.root):
                    process.kill()

    def check(self, mutation: Mutation) -> Result:
        """Plant a bug, run the test that should catch it, and remove the bug."""
        began = time.monotonic()

        def result(outcome: Outcome, details: str = "") -> Result:
            return Result(
                mutation=mutation,
                outcome=outcome,
                seconds=time.monotonic() - began,
                details=details,
            )

        if problem := apply(mutation, self.root):
            return result("ERROR", f"the patch does not apply: {problem}")
        try:
            code, output = self.run(mutation.caught_by)
        finally:
            for name in mutation.files:
                shutil.copy2(ROOT / name, self.root / name)
        if code == _PASSED:
            return result("SURVIVED")
        # A process that is killed by a signal, or hangs, has been caught as well.
        if code is None or code == _FAILED or code < 0:
            return result("caught")
        return result("ERROR", f"pytest exited with {code}:\n{output[-2000:]}")


def make_copies(directory: Path, count: int) -> list[Copy]:
    """Return *count* copies of the package, with byte code that is never outdated."""
    first, *others = [directory / f"copy-{number}" for number in range(count)]
    ignored = shutil.ignore_patterns("__pycache__", "site", "results")
    for name in _COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, first / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, first / name)
    # By hash: a mutation changes a file within a second, and often keeps its size.
    words = ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash"]
    subprocess.run(
        [sys.executable, *words, "trio_supervisor", "tests"], cwd=first, check=True
    )
    for other in others:
        shutil.copytree(first, other, symlinks=True)
    return [Copy(root) for root in (first, *others)]


def run_mutations(mutations: Sequence[Mutation], jobs: int) -> int:
    """Print one line for each mutation; return 1 if a mutation survives or fails.

    Args:
        jobs: Number of mutations that are tried at the same time.
    """
    tests = sorted({mutation.caught_by for mutation in mutations})
    with tempfile.TemporaryDirectory(prefix="mutations-") as directory:
        copies = make_copies(Path(directory).resolve(), max(1, jobs))
        print(f"running {len(tests)} tests without any mutation", flush=True)
        failing = set()
        for test, (code, output) in _each(copies, Copy.run, tests):
            if code != _PASSED:
                print(f"FAILS without any mutation: {test}\n{output[-2000:]}")
                failing.add(test)
        results = []
        usable = [each for each in mutations if each.caught_by not in failing]
        for _, result in _each(copies, Copy.check, usable):
            print(result, flush=True)
            results.append(result)
    count = dict.fromkeys(("caught", "SURVIVED", "ERROR"), 0)
    for result in results:
        count[result.outcome] += 1
    count["ERROR"] += len(mutations) - len(usable)
    print(
        f"{len(mutations)} mutations: {count['caught']} caught, "
        f"{count['SURVIVED']} survived, {count['ERROR']} with an error"
    )
    return 0 if count["caught"] == len(mutations) else 1


def _each(
    copies: Sequence[Copy], run: Callable[[Copy, S], T], items: Iterable[S]
) -> Iterator[tuple[S, T]]:
    """Yield each item with its result, in their order; each copy runs one at a time."""
    free: SimpleQueue[Copy] = SimpleQueue()
    for copy in copies:
        free.put(copy)

    def run_one(item: S) -> tuple[S, T]:
        copy = free.get()
        try:
            return item, run(copy, item)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(len(copies)) as executor:
        yield from executor.map(run_one, items)
