"""Forked copies of the process, to inspect its memory without pausing it."""
