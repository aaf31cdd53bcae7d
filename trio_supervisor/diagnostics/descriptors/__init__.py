"""A census of open file descriptors."""
