"""Compare source files with those that a generation has imported."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from attrs import define

from trio_supervisor.errors import SupervisorError
from trio_supervisor.process.code.code_files import changed_file, differing_file
from trio_supervisor.process.imports.declaration import read_answer
from trio_supervisor.process.spawn.code_source import shown_path
from trio_supervisor.process.threads import run_in_thread


class CodeLostError(OSError):
    """No process holds the code of this generation any more, and its files differ."""

    was_imported = True
    """Whether an import was needed to find the difference."""


@define(eq=False)
class GenerationCode:
    """The source files of a generation, with a hash of each: see `code_files`."""

    files: Mapping[str, str] | None
    """None: not known yet; the first import tells."""

    @property
    def is_known(self) -> bool:
        """Whether there is anything to compare with."""
        return self.files is not None

    async def check_files(self) -> None:
        """Check that an import now would read the code of this generation.

        Raises:
            CodeLostError: a file has changed.
        """
        if self.files is None:
            return
        path = await run_in_thread(changed_file, self.files)
        if path is not None:
            error = CodeLostError(_changed_text(path))
            error.was_imported = False
            raise error

    def check_answer(self, answer: bytes, shown: str) -> None:
        """Check the files that a new fork server has imported, and keep them.

        Args:
            answer: The declaration that the server has sent.
            shown: The target, for messages.

        Raises:
            CodeLostError: they are not the code of this generation.
        """
        if self.files is None:
            with suppress(SupervisorError):  # the server's children report the error
                self.files = read_answer(answer, shown).files
            return
        try:
            files = read_answer(answer, shown).files or {}
        except SupervisorError as exc:
            raise CodeLostError(f"the code cannot be imported again: {exc}") from None
        if (path := differing_file(self.files, files)) is not None:
            raise CodeLostError(_changed_text(path))
        self.files = {**self.files, **files}


def _changed_text(path: str) -> str:
    return (
        f"{shown_path(path)} has changed since this generation was imported, and no "
        f"fork server holds its code any more; reload to start the new code"
    )
