"""Planted bugs, each a patch; ``python -m tests.mutations`` checks that tests fail."""
