"""Which thread waits for which lock, and deadlocks."""
