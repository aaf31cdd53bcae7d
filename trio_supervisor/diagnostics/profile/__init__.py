"""A sampling profiler, and a profiler of the garbage collector."""
