"""The verb ``top``: a full-screen live view of a running application.

Rows, order, sparklines and commands are computed by modules without I/O; `client` talks
to the supervisor, `usage` reads /proc, and `app` draws with textual.
"""
