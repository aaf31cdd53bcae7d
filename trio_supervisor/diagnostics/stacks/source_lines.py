"""On which line of a source file something is defined."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from attrs import define, field

_LARGEST: Final = 2 * 1024 * 1024
"""Of a file that is looked into [bytes]."""

_Block = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@define(eq=False)
class Sources:
    """Remembers what files define."""

    _files: dict[str, dict[str, int]] = field(factory=dict)

    def line_of(self, file: str, name: str) -> int:
        """Return the line of a class, function or variable, by its qualified name.

        1: it is not to be found there, or the file is not to be read.
        """
        if file not in self._files:
            self._files[file] = _definitions(file)
        return self._files[file].get(name, 1)


def _definitions(file: str) -> dict[str, int]:
    found: dict[str, int] = {}
    with suppress(OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        if os.stat(file).st_size <= _LARGEST:
            with open(file, "rb") as source:
                _note(ast.parse(source.read()), "", found)
    return found


def _note(block: _Block, prefix: str, found: dict[str, int]) -> None:
    for node in _statements(block):
        if isinstance(node, ast.ClassDef):
            found.setdefault(prefix + node.name, node.lineno)
            _note(node, f"{prefix}{node.name}.", found)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.setdefault(prefix + node.name, node.lineno)
            _note(node, f"{prefix}{node.name}.<locals>.", found)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.setdefault(prefix + node.id, node.lineno)
        elif isinstance(node, ast.alias):
            name = node.asname or node.name.split(".")[0]
            found.setdefault(prefix + name, node.lineno)


def _statements(block: ast.AST) -> Iterator[ast.AST]:
    """Return what is in *block*, without what is in the blocks in it."""
    for node in ast.iter_child_nodes(block):
        yield node
        if not isinstance(node, _Block | ast.Lambda):
            yield from _statements(node)
