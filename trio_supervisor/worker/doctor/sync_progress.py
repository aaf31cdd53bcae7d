"""Detect whether a plain function makes progress, without an event loop to show it."""

from __future__ import annotations

from types import CodeType, FrameType
from typing import Final

from attrs import define, field

from trio_supervisor.diagnostics.stacks.frames import outwards

_SAME_FUNCTION: Final = 10
"""Samples in the same function, after which its frame is compared too."""


@define(eq=False)
class SingleCallDetector:
    """Detects that all samples saw the main thread in the same call of one function.

    A call is identified by its frame, which must be kept alive from one sample to the
    next; if the call has ended by then, its variables stay alive as well. So the frame
    is kept only once the function has been the same for a while, and never again after
    another call was seen.
    """

    _code: CodeType | None = field(default=None, init=False)
    _frame: FrameType | None = field(default=None, init=False)
    _samples: int = field(default=0, init=False)
    _differs: bool = field(default=False, init=False)

    @property
    def is_single_call(self) -> bool:
        """Whether all samples are known to be of one call."""
        return self._frame is not None

    def sample(self, frame: FrameType | None) -> None:
        """Compare *frame*, the thread's innermost one, with the samples before."""
        frame = _skip_expressions(frame)
        self._samples += 1
        if frame is None or self._differs:
            self.close()
        elif self._code is None:
            self._code = frame.f_code
        elif frame.f_code is not self._code or (
            self._frame is not None and frame is not self._frame
        ):
            self._differs = True
            self.close()
        elif self._samples >= _SAME_FUNCTION:
            self._frame = frame

    def close(self) -> None:
        """Release the frame."""
        self._frame = None


def _skip_expressions(frame: FrameType | None) -> FrameType | None:
    """Return the function around generator expressions, lambdas and the like."""
    for found in outwards(frame):
        if not found.f_code.co_name.startswith("<") or found.f_back is None:
            return found
    return None
