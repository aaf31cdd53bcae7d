"""Read the tasks of trio and asyncio, and detect stalls of the event loop."""
