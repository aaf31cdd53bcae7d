"""Health endpoints over HTTP; imported only with ``--http``."""
