"""Layer 1: the root process, which starts, watches and restarts all the others."""
