"""What children print: drained always, kept a little, and written where it belongs."""
