"""Find the line on which a source file defines a name."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from attrs import define, field

_MAX_SIZE: Final = 2 * 1024 * 1024
"""Size of the largest file that is parsed [bytes]."""

_Block = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@define(eq=False)
class Sources:
    """A cache of the names that source files define."""

    _files: dict[str, dict[str, int]] = field(factory=dict)

    def line_of(self, file: str, name: str) -> int:
        """Return the line of a class, function or variable, by its qualified name.

        1: the name was not found, or the file cannot be read.
        """
        if file not in self._files:
            self._files[file] = _definitions(file)
        return self._files[file].get(name, 1)


def _definitions(file: str) -> dict[str, int]:
    found: dict[str, int] = {}
    with suppress(OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        if os.stat(file).st_size <= _MAX_SIZE:
            with open(file, "rb") as source:
                _collect(ast.parse(source.read()), "", found)
    return found


def _collect(block: _Block, prefix: str, found: dict[str, int]) -> None:
    for node in _statements(block):
        if isinstance(node, ast.ClassDef):
            found.setdefault(prefix + node.name, node.lineno)
            _collect(node, f"{prefix}{node.name}.", found)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.setdefault(prefix + node.name, node.lineno)
            _collect(node, f"{prefix}{node.name}.<locals>.", found)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.setdefault(prefix + node.id, node.lineno)
        elif isinstance(node, ast.alias):
            name = node.asname or node.name.split(".")[0]
            found.setdefault(prefix + name, node.lineno)


def _statements(block: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes in *block*, without those in nested blocks."""
    for node in ast.iter_child_nodes(block):
        yield node
        if not isinstance(node, _Block | ast.Lambda):
            yield from _statements(node)
