"""The wire protocol over trio streams: listen, connect, call, answer, reconnect."""
