"""The dialog that asks before something is lost, and the pane that shows output."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from trio_supervisor.cli.top.client import RunningVerb

_PANE_KEYS: Final = "arrows, page up/down, home, end scroll   q or escape closes"


class ConfirmDialog(ModalScreen[bool]):
    """A question that is answered by y or n."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes"),
        Binding("n,escape,q", "answer(False)", "no"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """Draw the question."""
        with Vertical(id="dialog"):
            yield Static(Text(f"{self._question}\n\ny  yes     n  no"))

    def action_answer(self, is_yes: bool) -> None:
        """Close the dialog with the answer."""
        self.dismiss(is_yes)


class OutputPane(Screen[None]):
    """What a verb prints, in a pane that scrolls; closing it kills the verb."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,escape", "close", "close"),
        Binding("home,g", "scroll('home')", "top"),
        Binding("end,G", "scroll('end')", "bottom"),
    ]

    class VerbFinished(Message):
        """The verb has exited."""

        def __init__(self, code: int, output: str) -> None:
            super().__init__()
            self.code = code
            self.output = output

    def __init__(
        self, title: str, start: Callable[[], RunningVerb], is_end_shown: bool
    ) -> None:
        super().__init__()
        self._title = title
        self._start = start
        self._is_end_shown = is_end_shown
        self._run: RunningVerb | None = None

    def compose(self) -> ComposeResult:
        """Draw the title, the output and the keys."""
        yield Static(Text(f"{self._title}: running"), id="title", classes="bar")
        with VerticalScroll(id="scroll"):
            yield Static(id="output")
        yield Static(Text(_PANE_KEYS), classes="bar")

    def on_mount(self) -> None:
        """Start the verb."""
        self.query_one("#scroll").focus()
        run = self._run = self._start()
        in_thread(lambda: self.post_message(self.VerbFinished(*run.wait())))

    def on_output_pane_verb_finished(self, message: VerbFinished) -> None:
        """Show what the verb printed."""
        code = f" (exit code {message.code})" if message.code else ""
        self.query_one("#title", Static).update(Text(f"{self._title}{code}"))
        self.query_one("#output", Static).update(Text(message.output))
        if self._is_end_shown:
            self.query_one("#scroll").scroll_end(animate=False)

    def on_unmount(self) -> None:
        """Kill the verb, if it still runs."""
        if self._run is not None:
            self._run.kill()

    def action_close(self) -> None:
        """Close the pane."""
        self.dismiss(None)

    def action_scroll(self, where: str) -> None:
        """Scroll to an end."""
        scroll = self.query_one("#scroll")
        if where == "home":
            scroll.scroll_home(animate=False)
        else:
            scroll.scroll_end(animate=False)


def in_thread(work: Callable[[], object]) -> None:
    """Do *work*, which blocks, in a thread that does not delay the exit.

    asyncio waits at its end for the threads of its executor, which textual's workers
    use: a supervisor that does not respond would delay `q` until ``--timeout``.
    """
    threading.Thread(target=work, daemon=True).start()
