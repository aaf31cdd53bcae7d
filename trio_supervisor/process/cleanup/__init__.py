"""Stop processes, reap orphans, and clean up after a killed controller."""
