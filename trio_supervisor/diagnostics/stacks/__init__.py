"""Stacks of this process's threads: frames, local variables, blocking calls."""
