"""The wire over a trio stream: listen, connect, call, answer, connect again."""
