"""Layer 2: the process that knows all workers, watches them, and answers people."""
