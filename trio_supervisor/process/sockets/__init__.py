"""Listening sockets: bind them, adopt them from systemd, remove their files."""
