"""All memory in which one process counts for the controller."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Self

from attrs import frozen

from trio_supervisor.process.shared_numbers import SharedNumbers, open_numbers
from trio_supervisor.process.shared_values import SharedValues, open_values


@frozen(eq=False)
class SharedCounts:
    """The controller's end; made by `open_counts`. A context manager."""

    numbers: SharedNumbers | None
    """Of the metrics that its service declares."""
    values: SharedValues | None
    """Of the metrics that its code makes with prometheus_client."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def descriptors(self) -> list[int]:
        """For the process to inherit, in this order."""
        both = (self.numbers, self.values)
        return [each.descriptor for each in both if each is not None]

    def close(self) -> None:
        """Close the memory. May be called again."""
        for each in (self.numbers, self.values):
            if each is not None:
                each.close()


def open_counts(slots: int | None, *, has_values: bool) -> SharedCounts | None:
    """Return memory for *slots* numbers, and for a table of values if asked for.

    Returns:
        None: neither is asked for.

    Raises:
        OSError: the system has no memory or no descriptor for it.
    """
    if slots is None and not has_values:
        return None
    with ExitStack() as stack:
        numbers = values = None
        if slots is not None:
            numbers = stack.enter_context(open_numbers(slots))
        if has_values:
            values = stack.enter_context(open_values())
        stack.pop_all()
    return SharedCounts(numbers, values)
