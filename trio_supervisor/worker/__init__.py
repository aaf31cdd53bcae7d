"""Layer 3: what runs in a worker process, beside and around the user's own code."""
