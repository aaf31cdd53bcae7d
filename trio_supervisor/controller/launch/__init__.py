"""How child processes are started, and what they inherit."""
