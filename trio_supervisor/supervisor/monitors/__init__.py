"""What watches the workers."""
