"""How a command is asked from outside whether it works. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, TypedDict

from attrs import frozen

from trio_supervisor.application import checks
from trio_supervisor.application.listen import host_and_port, join_host_and_port
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.secrets import hide_text, join_words

# Printable ASCII: a path goes into the first line of a request as it is.
_URL: Final = re.compile(r"http://([^/?#]*)(/[!-\"$-~]*)?")
_DEFAULT_PORT: Final = 80
AnsweredBy: TypeAlias = Literal["worker", "anyone"]
_ANSWERED_BY: Final = ("worker", "anyone")


@frozen(kw_only=True)
class Probe:
    """A question asked over and over; made by `http`, `tcp` or `command`.

    What each of them takes:
        interval: Time from the end of one attempt to the next [s].
        timeout: An attempt that takes longer has failed [s].
        failures: So many failed attempts in a row are bad news.
        successes: So many successful ones in a row are good news.
        delay: Time from the start of the process to the first attempt [s].

    What `http` and `tcp` take:
        answered_by: ``"worker"``: an answer from another process of this machine, where
            that can be told, does not make the worker ready. ``"anyone"``: it does, as
            for a container's port, which another program holds.

    What each of them raises:
        SpecError: an argument does not fit; the message names it.
    """

    kind: Literal["http", "tcp", "command"]
    host: str = ""
    port: int = 0
    path: str = ""
    """With the query, if there is one; for http."""
    arguments: tuple[str, ...] = ()
    """For a command."""
    answered_by: AnsweredBy = "worker"
    interval: float
    timeout: float
    failures: int
    successes: int
    delay: float

    @classmethod
    def http(
        cls,
        url: str,
        *,
        interval: float = 5.0,
        timeout: float = 2.0,
        failures: int = 3,
        successes: int = 1,
        delay: float = 0.0,
        answered_by: AnsweredBy = "worker",
    ) -> Probe:
        """Ask with a GET request to *url*: good is a status from 200 to 399."""
        host, port, path = _http("url", url)
        return cls(
            kind="http",
            answered_by=checks.one_of("answered_by", answered_by, _ANSWERED_BY),
            host=host,
            port=port,
            path=path,
            **_schedule(interval, timeout, failures, successes, delay),
        )

    @classmethod
    def tcp(
        cls,
        address: str,
        *,
        interval: float = 5.0,
        timeout: float = 2.0,
        failures: int = 3,
        successes: int = 1,
        delay: float = 0.0,
        answered_by: AnsweredBy = "worker",
    ) -> Probe:
        """Ask with a connection to *address*, ``HOST:PORT``: good is to be accepted."""
        if not isinstance(address, str):
            problem = f"expected 'HOST:PORT', got {checks.shown(address)}"
            raise SpecError("address", problem)
        host, port = host_and_port("address", address)
        return cls(
            kind="tcp",
            answered_by=checks.one_of("answered_by", answered_by, _ANSWERED_BY),
            host=host,
            port=port,
            **_schedule(interval, timeout, failures, successes, delay),
        )

    @classmethod
    def command(
        cls,
        arguments: Sequence[str],
        *,
        interval: float = 5.0,
        timeout: float = 2.0,
        failures: int = 3,
        successes: int = 1,
        delay: float = 0.0,
    ) -> Probe:
        """Ask by running a program, without a shell: good is exit code 0."""
        return cls(
            kind="command",
            arguments=checks.arguments("arguments", arguments),
            **_schedule(interval, timeout, failures, successes, delay),
        )

    def __str__(self) -> str:
        """What it asks: a URL, or a command line."""
        if self.kind == "command":
            return join_words(self.arguments)
        address = join_host_and_port(self.host, self.port)
        return hide_text(f"{self.kind}://{address}{self.path}")


class _Schedule(TypedDict):
    interval: float
    timeout: float
    failures: int
    successes: int
    delay: float


def _schedule(
    interval: object,
    timeout: object,
    failures: object,
    successes: object,
    delay: object,
) -> _Schedule:
    return {
        "interval": checks.seconds("interval", interval, least=0.01),
        "timeout": checks.seconds("timeout", timeout, least=0.01),
        "failures": checks.integer("failures", failures, least=1),
        "successes": checks.integer("successes", successes, least=1),
        "delay": checks.seconds("delay", delay, least=0),
    }


def _http(field: str, url: object) -> tuple[str, int, str]:
    if not isinstance(url, str):
        raise SpecError(field, f"expected a string, got {checks.shown(url)}")
    if url.lower().startswith("https:"):
        problem = "https is not spoken; use Probe.command with a program that does"
        raise SpecError(field, problem)
    match = _URL.fullmatch(url)
    if match is None:
        problem = "expected http://HOST:PORT/PATH in printable ASCII"
        raise SpecError(field, f"{problem}, got {checks.shown(url)}")
    address, path = match[1], match[2] or "/"
    if not re.search(r":[0-9]*\Z", address):
        address = f"{address}:{_DEFAULT_PORT}"
    return *host_and_port(field, address), path
