"""List the generated files of docs/, and write or check them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from trio_supervisor.reference import (
    configuration_schema,
    explanations,
    man_page,
    operations,
    options,
    protocol,
    public_names,
    schema,
    verbs,
)

PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "reference/options.md": options.page,
    "reference/verbs.md": verbs.verbs_page,
    "reference/exit-codes.md": verbs.exit_codes_page,
    "reference/explain.md": explanations.page,
    "reference/operations.md": operations.page,
    "man/trio-supervisor.1": man_page.page,
    "schema/application.schema.json": schema.page,
    "schema/protocol.schema.json": protocol.page,
    "schema/supervisor.schema.json": configuration_schema.page,
    "../trio_supervisor/config/supervisor.schema.json": configuration_schema.page,
    "../trio_supervisor/__init__.pyi": public_names.stub,
}
"""The generated files: path below docs/, and the function that returns the text.

A page is a module of this package with one such function; add a line here for it.
"""


def write(docs: Path) -> list[Path]:
    """Write each page that is missing or out of date; return the paths written."""
    stale = outdated(docs)
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = PAGES[path.relative_to(docs).as_posix()]()
        path.write_text(text, encoding="utf-8")
    return stale


def outdated(docs: Path) -> list[Path]:
    """Return the paths of pages that are missing or differ from the declarations."""
    return [docs / name for name, page in PAGES.items() if _read(docs / name) != page()]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
