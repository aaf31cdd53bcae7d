"""Inspect a process from outside: kernel state, faulthandler stacks, machine load."""
