"""Reads a process: memory, stacks. Synchronous; no event loop."""
