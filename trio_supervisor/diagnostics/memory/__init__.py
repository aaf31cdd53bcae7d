"""Memory use, and which new objects are alive and what holds them."""
