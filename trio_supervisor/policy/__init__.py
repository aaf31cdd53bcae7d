"""Decide as pure functions of what happened: no clock, randomness or I/O."""
