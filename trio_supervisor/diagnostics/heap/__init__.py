"""Heap dumps: write, summarize and compare them."""
