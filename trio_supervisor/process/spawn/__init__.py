"""Start processes: by exec, or by fork from a server that has imported the code."""
