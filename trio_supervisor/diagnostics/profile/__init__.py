"""A sampling profiler, and a profile of the garbage collector."""
