"""Draw the live view with textual, and handle its keys."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from typing import ClassVar, Final, Literal

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.message import Message
from textual.types import CSSPathType
from textual.widgets import DataTable, Input, Static

from trio_supervisor.cli.output import STATE_COLOURS
from trio_supervisor.cli.top.client import TopClient
from trio_supervisor.cli.top.commands import KEYS, TopCommand, TopKey, command_of
from trio_supervisor.cli.top.history import UsageHistory
from trio_supervisor.cli.top.layout import layout
from trio_supervisor.cli.top.rows import (
    TopRow,
    TopSnapshot,
    record,
    rows_of,
)
from trio_supervisor.cli.top.screens import ConfirmDialog, OutputPane, in_thread
from trio_supervisor.cli.top.sorting import (
    filter_rows,
    next_order,
    sort_rows,
)
from trio_supervisor.errors import SupervisorError
from trio_supervisor.process.output.escaping import escape_line, escape_text

_KEY_HELP: Final = (
    "s sort  / filter  r restart  x stop  S start  + - scale  q quit\n"
    "t threads  T tasks  d doctor  l logs  enter status"
)
_NOTIFIED: Final = 500
"""Characters that a notification shows of an output."""


class TopApp(App[None]):
    """The live view."""

    ENABLE_COMMAND_PALETTE = False
    CSS_PATH: ClassVar[CSSPathType | None] = "top.tcss"
    TITLE: str | None = "trio-supervisor top"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "quit", "quit", priority=False),
        Binding("s", "sort", "sort"),
        Binding("slash", "filter", "filter"),
        Binding("escape", "no_filter", "no filter"),
        *(Binding(key.key, f"run({n})", key.effect) for n, key in enumerate(KEYS)),
    ]

    class Read(Message):
        """The state was read, or could not be."""

        def __init__(self, answer: TopSnapshot | SupervisorError) -> None:
            super().__init__()
            self.answer = answer

    class Ran(Message):
        """A verb without a pane has exited."""

        def __init__(self, command: TopCommand, code: int, output: str) -> None:
            super().__init__()
            self.command = command
            self.code = code
            self.output = output

    def __init__(self, client: TopClient, path: str, interval: float) -> None:
        # The terminal's own colours: they suit its background, and need no more of it.
        super().__init__(ansi_color=True)
        self._client = client
        self._path = path
        self._interval = interval
        self._history = UsageHistory()
        self._snapshot: TopSnapshot | None = None
        self._read_at = 0.0
        self._problem = ""
        self._order = "name"
        self._filter = ""
        self._rows: list[TopRow] = []
        self._is_reading = False
        self._in_progress: set[str] = set()
        self._header = Static(id="header")
        self._table = DataTable[Text](id="table", cursor_type="row", cell_padding=0)

    def compose(self) -> ComposeResult:
        """Draw the header, the table and the keys."""
        yield self._header
        yield self._table
        yield Input(id="filter", placeholder="part of a name, or a pattern: web.*")
        yield Static(Text(_KEY_HELP), id="keys")

    def on_mount(self) -> None:
        """Begin to read the state again and again."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Else the terminal would be left in its raw mode.
            with suppress(NotImplementedError, RuntimeError, ValueError):
                asyncio.get_running_loop().add_signal_handler(number, self.exit)
        self.query_one("#filter").display = False
        self._add_columns()
        self._table.focus()
        self._show_header()
        self.set_interval(self._interval, self._read)
        self._read()

    def on_resize(self, _: Resize) -> None:
        """Fit the last column to the new width."""
        if self._table.columns:
            self._table.clear(columns=True)
            self._add_columns()
            self._show_rows()

    # Reading

    def _read(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            in_thread(self._read_in_thread)

    def _read_in_thread(self) -> None:
        answer: TopSnapshot | SupervisorError
        try:
            answer = self._client.read()
        except SupervisorError as exc:
            answer = exc
        except Exception as exc:  # such as no file descriptors: shown, and retried
            answer = SupervisorError(f"{type(exc).__name__}: {exc}")
        self.post_message(self.Read(answer))

    def on_top_app_read(self, message: Read) -> None:
        """Show the state that was read, or why it was not."""
        if not self.screen_stack:  # the view is closing
            return
        self._is_reading = False
        if isinstance(message.answer, SupervisorError):
            self._problem = escape_line(str(message.answer).partition("\n")[0])
        else:
            self._problem = ""
            self._snapshot, self._read_at = message.answer, time.monotonic()
            record(self._snapshot, self._history)
            self._show_rows()
        self._show_header()

    # Drawing

    def _add_columns(self) -> None:
        for number, (title, width) in enumerate(layout(self.size.width).columns):
            self._table.add_column(Text(title), width=width, key=str(number))

    def _show_header(self) -> None:
        lines = []
        if self._problem:
            age = ""
            if self._snapshot is not None:
                age = f" (last seen {time.monotonic() - self._read_at:.0f} s ago)"
            lines += [f"not connected; trying again{age}", self._problem]
        elif self._snapshot is None:
            lines += [f"connecting to {escape_line(self._path)}", ""]
        else:
            found = self._snapshot.workers
            ready = sum(worker["state"] == "ready" for worker in found)
            chosen = f"; filter: {escape_line(self._filter)}" if self._filter else ""
            lines += [
                self._snapshot.headline,
                f"{len(found)} workers, {ready} ready; sort: {self._order}{chosen}",
                *self._snapshot.problems[:3],
            ]
        text = Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
        self._header.set_class(bool(self._problem), "problem")
        self._header.update(text)

    def _show_rows(self) -> None:
        if self._snapshot is None:
            return
        rows = rows_of(self._snapshot, self._history, layout(self.size.width).sparks)
        rows = sort_rows(filter_rows(rows, self._filter), self._order)
        selected = self._selected()
        is_same = [row.key for row in rows] == [row.key for row in self._rows]
        self._rows = rows
        table = self._table
        if is_same and table.row_count == len(rows):
            for row in rows:
                for number, cell in enumerate(_texts(row)):
                    table.update_cell(row.key, str(number), cell)
            return
        scroll = table.scroll_offset
        table.clear()
        for row in rows:
            table.add_row(*_texts(row), key=row.key)
        keys = [row.key for row in rows]
        if selected is not None and selected.key in keys:
            table.move_cursor(row=keys.index(selected.key), scroll=False)
            table.scroll_to(y=scroll.y, animate=False, force=True)

    def _selected(self) -> TopRow | None:
        number = self._table.cursor_row
        return self._rows[number] if 0 <= number < len(self._rows) else None

    # Keys

    def action_sort(self) -> None:
        """Sort by the next column."""
        self._order = next_order(self._order)
        self._show_rows()
        self._show_header()

    def action_filter(self) -> None:
        """Ask for the filter."""
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def action_no_filter(self) -> None:
        """Show all rows again."""
        self.query_one("#filter", Input).value = ""
        self._leave_filter()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter by what was typed so far."""
        self._filter = event.value.strip()
        self._show_rows()
        self._show_header()

    def on_input_submitted(self, _: Input.Submitted) -> None:
        """Keep the filter, and return to the table."""
        self._leave_filter()

    def _leave_filter(self) -> None:
        self.query_one("#filter").display = False
        self._table.focus()

    def on_data_table_row_selected(self, _: DataTable.RowSelected) -> None:
        """Show the status: the table takes the key enter before the application."""
        self._run_key(next(key for key in KEYS if key.key == "enter"))

    def action_run(self, number: int) -> None:
        """Run the verb of a key for the selected row."""
        self._run_key(KEYS[number])

    def _run_key(self, key: TopKey) -> None:
        if len(self.screen_stack) > 1:
            return  # a dialog or a pane is open
        row = self._selected()
        if row is None:
            self._say("no worker is selected", is_error=True)
            return
        command = command_of(key, row)
        if isinstance(command, str):
            self._say(command, is_error=True)
        elif command.is_shown:
            words = command.words
            self.push_screen(
                OutputPane(
                    command.title,
                    lambda: self._client.start(words),
                    is_end_shown=words[0] == "logs",
                )
            )
        elif command.question:
            self.push_screen(
                ConfirmDialog(command.question),
                lambda is_yes: self._run_now(command) if is_yes else None,
            )
        else:
            self._run_now(command)

    def _run_now(self, command: TopCommand) -> None:
        verb, name = command.words[0], command.words[1].partition("=")[0]
        if (what := f"{verb} {name}") in self._in_progress:
            # A second `+` would ask for the same number again.
            self._say(f"{what} is still in progress", is_error=True)
            return
        self._in_progress.add(what)
        run = self._client.start(command.words)
        self._say(f"{command.title} …")
        in_thread(lambda: self.post_message(self.Ran(command, *run.wait())))

    def on_top_app_ran(self, message: Ran) -> None:
        """Show the result of a verb."""
        if not self.screen_stack:  # the view is closing
            return
        verb, word = message.command.words[:2]
        self._in_progress.discard(f"{verb} {word.partition('=')[0]}")
        text = message.output.strip().removeprefix("trio-supervisor: ")
        default = f"{message.command.title}: exit code {message.code}"
        self._say(text[:_NOTIFIED] or default, is_error=message.code != 0)
        self._read()

    def _say(self, text: str, is_error: bool = False) -> None:
        severity: Literal["error", "information"]
        severity = "error" if is_error else "information"
        timeout = 8.0 if is_error else 3.0
        self.notify(escape_text(text), severity=severity, timeout=timeout, markup=False)


def _texts(row: TopRow) -> list[Text]:
    cells = [Text(cell, no_wrap=True, overflow="ellipsis") for cell in row.cells]
    colour = STATE_COLOURS.get(row.state, "")
    if colour:
        cells[1].stylize(colour)
    if row.is_service:
        cells[0].stylize("bold")
    return cells
