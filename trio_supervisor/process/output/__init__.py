"""Output of children: read it without delay, keep the last lines, write it out."""
