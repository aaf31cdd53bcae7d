"""Count open file descriptors by kind and target."""
