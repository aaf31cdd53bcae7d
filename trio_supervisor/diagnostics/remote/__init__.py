"""Python stacks of another process, read from its memory."""
