"""Post-mortems of workers that crashed or were killed."""
