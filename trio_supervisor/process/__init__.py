"""One OS process: started, watched, asked to end, and its whole group gone after."""
