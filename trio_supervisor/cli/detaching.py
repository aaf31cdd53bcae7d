"""Find the keys that detach among those that are typed. Pure."""

from __future__ import annotations

from typing import Final

from attrs import define, field

SHOWN: Final = "Ctrl-], or Ctrl-P Ctrl-Q,"
_AT_ONCE: Final = 0x1D  # Ctrl-], as telnet
_FIRST, _SECOND = 0x10, 0x11  # Ctrl-P Ctrl-Q, as docker


@define
class DetachKeys:
    """What is typed, up to the keys that detach."""

    is_detached: bool = field(default=False, init=False)
    _is_held: bool = field(default=False, init=False)
    """Whether the last key was the first of two."""

    def take(self, typed: bytes) -> bytes:
        """Return what is passed on of *typed*; nothing after the keys that detach."""
        passed = bytearray()
        for key in typed:
            if self._is_held:
                self._is_held = False
                if key == _SECOND:
                    self.is_detached = True
                    break
                passed.append(_FIRST)
            if key == _AT_ONCE:
                self.is_detached = True
                break
            if key == _FIRST:
                self._is_held = True
            else:
                passed.append(key)
        return bytes(passed)
