"""Tasks of trio and asyncio, and stalls of the event loop."""
