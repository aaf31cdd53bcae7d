"""Read the stacks of this process's threads: frames, variables, blocking calls."""
