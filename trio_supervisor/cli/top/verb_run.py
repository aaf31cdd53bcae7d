"""Run another verb as a process of its own, and collect what it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

from trio_supervisor.process.output.escaping import escape_text

_MOST: Final = 2**20
"""Characters that are shown of an output."""


class VerbRun:
    """A verb that runs."""

    def __init__(self, words: tuple[str, ...], socket_path: str) -> None:
        verb, *arguments = words
        # `-m` would put the current directory on sys.path, where a file may have the
        # name of a library.
        flags = [] if "" in sys.path or os.getcwd() in sys.path else ["-P"]
        program = [sys.executable, *flags, "-m", "trio_supervisor"]
        self._process = subprocess.Popen(
            [*program, verb, "--socket", socket_path, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="backslashreplace",
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )

    def wait(self) -> tuple[int, str]:
        """Return the exit code and the output; control characters are escaped."""
        output, _ = self._process.communicate()
        if len(output) > _MOST:
            output = f"{output[:_MOST]}\n(cut after {_MOST} characters)"
        return self._process.returncode, escape_text(output.expandtabs())

    def kill(self) -> None:
        """Kill the verb, if it still runs; what it requested may be carried out."""
        self._process.kill()
