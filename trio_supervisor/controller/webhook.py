"""Send an event to a web hook."""

from __future__ import annotations

import urllib.error
import urllib.request

from trio_supervisor._version import __version__


def post_event(url: str, body: bytes, timeout: float) -> str:
    """Post *body*, JSON, to *url*; return what went wrong, or an empty string.

    Args:
        timeout: For the connection and for each part of the answer [s].

    Raises:
        OSError: the connection failed.
    """
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"trio_supervisor/{__version__}",
    }
    request = urllib.request.Request(url, body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            answer.read(1)
    except urllib.error.HTTPError as exc:
        exc.close()
        return f"HTTP status {exc.code}"
    except (urllib.error.URLError, ValueError) as exc:
        return str(getattr(exc, "reason", exc))
    return ""
