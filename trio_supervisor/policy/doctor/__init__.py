"""Turn measurements of one worker into findings. Pure."""
