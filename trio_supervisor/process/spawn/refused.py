"""Define the error of an attribute that the system refuses. Standard library only."""

from __future__ import annotations


class AttributeRefusedError(OSError):
    """The system refuses an attribute of a new process.

    Attributes:
        option: Path of the option, such as ``limits['core']``.
        reason: Why it is refused.
    """

    def __init__(self, option: str, setting: str, reason: str) -> None:
        super().__init__(f"cannot set {setting}: {reason}")
        self.option = option
        self.reason = reason
