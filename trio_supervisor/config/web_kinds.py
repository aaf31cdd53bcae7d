"""Make web services from tables with the key ``asgi`` or ``wsgi``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from trio_supervisor.application import Service, checks
from trio_supervisor.config.values import listen_value
from trio_supervisor.errors import SpecError

WEB_KINDS: Final[Mapping[str, str]] = {
    "asgi": "trio_supervisor.contrib:asgi",
    "wsgi": "trio_supervisor.contrib:wsgi",
}
"""Functions that return a service, by the key that names the application."""
WEB_KEYS: Final[Mapping[str, Sequence[str]]] = {
    "asgi": (
        *("bind", "server", "lifespan"),
        *("max_requests", "max_requests_jitter", "server_options"),
    ),
    "wsgi": (
        *("bind", "threads"),
        *("max_requests", "max_requests_jitter", "server_options"),
    ),
}
"""Keys of each kind beside those of `Service`; a test compares them with its function.
"""
NOT_IN_WEB: Final = ("target", "backend")
"""Options of `Service` that a web service chooses itself."""
_ANY_ADDRESS: Final = "tcp://127.0.0.1:0"


def web_value(name: str, value: Any, directory: str) -> Any:
    """Return the value of a key of `WEB_KEYS` as its function expects it.

    Raises:
        SpecError: it is malformed.
    """
    if name == "bind":
        several = value if isinstance(value, list) else [value]
        return [listen_value(each, directory, name) for each in several]
    return value


def make_web_service(
    make: Callable[..., Service], app: object, name: str, options: Mapping[str, Any]
) -> Service:
    """Return the service *name* that serves *app*.

    Raises:
        SpecError: the application cannot be imported, or an option is not valid.
    """
    if not isinstance(app, str):
        problem = 'expected "package.module:application"'
        raise SpecError("app", f"{problem}, got {checks.shown(app)}")
    return make(app, name=name, **options)


def code_of(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a worker needs of *table*: all but addresses and other options.

    A worker inherits its sockets; it needs to know how many there are.
    """
    [kind] = [key for key in WEB_KINDS if key in table]
    found = {key: table[key] for key in (kind, *WEB_KEYS[kind]) if key in table}
    if isinstance(bind := found.get("bind"), list):
        found["bind"] = [_ANY_ADDRESS] * len(bind)
    elif "bind" in found:
        found["bind"] = _ANY_ADDRESS
    timeout = table.get("stop_timeout")
    return found | ({} if timeout is None else {"stop_timeout": timeout})
