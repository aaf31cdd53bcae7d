"""Monitors, which watch workers and restart unhealthy ones."""
