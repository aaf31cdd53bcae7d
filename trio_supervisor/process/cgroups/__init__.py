"""Limits of a worker and the processes that it starts: a cgroup (v2) for each."""
