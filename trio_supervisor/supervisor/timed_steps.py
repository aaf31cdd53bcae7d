"""Measure how long a coroutine keeps the event loop from other tasks."""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


@types.coroutine
def time_steps(
    coroutine: Coroutine[Any, Any, T], on_step: Callable[[float], None]
) -> Generator[Any, Any, T]:
    """Run *coroutine*; call *on_step* with the length of each of its steps [s].

    A step ends when the coroutine waits: until then no other task runs. Tasks that the
    coroutine starts are not measured.
    """
    value: Any = None
    error: BaseException | None = None
    while True:
        began = time.perf_counter()
        try:
            trap = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            on_step(time.perf_counter() - began)
        try:
            value, error = (yield trap), None
        except BaseException as exc:  # for the coroutine: a cancellation, for one
            value, error = None, exc
