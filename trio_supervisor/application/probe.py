"""Probes: how the controller asks a command whether it works. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

from attrs import evolve, field, frozen

from trio_supervisor.application import checks
from trio_supervisor.application.fields import Checked, checked_later, option
from trio_supervisor.application.listen import host_and_port, join_host_and_port
from trio_supervisor.application.templates import fill, is_template
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.secrets import hide_text, join_words

# Printable ASCII: the path is written into the request line as it is.
_URL: Final = re.compile(r"http://([^/?#]*)(/[!-\"$-~]*)?")
_DEFAULT_PORT: Final = 80
AnsweredBy: TypeAlias = Literal["worker", "anyone"]


@frozen(kw_only=True, slots=False, field_transformer=checked_later)
class Probe(Checked):
    """A question that the controller asks a process over and over.

    Made by `Probe.http`, `Probe.tcp` or `Probe.command`.

    Example::

        Command("redis", ["redis-server"], readiness=Probe.tcp("127.0.0.1:6379"))
    """

    kind: Literal["http", "tcp", "command"]
    host: str = ""
    port: int = 0
    path: str = ""
    """With the query, if there is one; for http."""
    arguments: tuple[str, ...] = ()
    """For a command."""
    template: str = ""
    """URL or address with expressions such as ``{8000+index}``, of which `filled`
    makes that of each worker; empty: it is the same for all."""
    answered_by: AnsweredBy = field(
        default="worker",
        metadata=option(
            'Which process may answer. With `"worker"` an answer from another process '
            "of this machine, as far as that can be told, does not make the worker "
            'ready. With `"anyone"` it does, as for the port of a container, which '
            "another program holds. For http and tcp only.",
            choices=("worker", "anyone"),
        ),
    )
    interval: float = field(
        default=5.0,
        converter=checks.seconds,
        metadata=option(
            "Time from the end of one attempt to the start of the next. A startup "
            "probe is also asked in between, often at first; such an attempt counts "
            "only if it succeeds.",
            unit="s",
            least=0.01,
        ),
    )
    timeout: float = field(
        default=2.0,
        converter=checks.seconds,
        metadata=option(
            "Maximum duration of an attempt; one that takes longer has failed.",
            unit="s",
            least=0.01,
        ),
    )
    failures: int = field(
        default=3,
        converter=checks.integer,
        metadata=option(
            "Number of failed attempts in a row after which the probe fails.", least=1
        ),
    )
    successes: int = field(
        default=1,
        converter=checks.integer,
        metadata=option(
            "Number of successful attempts in a row after which the probe succeeds.",
            least=1,
        ),
    )
    delay: float = field(
        default=0.0,
        converter=checks.seconds,
        metadata=option(
            "Time from the start of the process to the first attempt.",
            unit="s",
            least=0,
        ),
    )

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
        """Probe with a GET request to *url*; a status from 200 to 399 is success.

        Raises:
            SpecError: the value of an option is not valid; the message names it.
        """
        host, port, path = _http(_of_first(url, "url"), "url")
        return cls(
            kind="http",
            template=_template(url),
            answered_by=answered_by,
            host=host,
            port=port,
            path=path,
            interval=interval,
            timeout=timeout,
            failures=failures,
            successes=successes,
            delay=delay,
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
        """Probe by connecting to *address*, ``HOST:PORT``; a connection is success.

        Raises:
            SpecError: the value of an option is not valid; the message names it.
        """
        if not isinstance(address, str):
            problem = f"expected 'HOST:PORT', got {checks.shown(address)}"
            raise SpecError("address", problem)
        host, port = host_and_port(_of_first(address, "address"), "address")
        return cls(
            kind="tcp",
            template=_template(address),
            answered_by=answered_by,
            host=host,
            port=port,
            interval=interval,
            timeout=timeout,
            failures=failures,
            successes=successes,
            delay=delay,
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
        """Probe by running a program, without a shell; exit code 0 is success.

        Raises:
            SpecError: the value of an option is not valid; the message names it.
        """
        return cls(
            kind="command",
            arguments=checks.arguments(arguments, "arguments"),
            interval=interval,
            timeout=timeout,
            failures=failures,
            successes=successes,
            delay=delay,
        )

    def filled(self, service: str, index: int) -> Probe:
        """Return the probe of worker *index* of *service*.

        Raises:
            SpecError: an expression is not valid.
        """
        if self.kind == "command":
            arguments = tuple(
                fill(item, service, index, f"arguments[{n}]")
                for n, item in enumerate(self.arguments)
            )
            return evolve(self, arguments=arguments)
        text = fill(self.template, service, index)
        if self.kind == "http" and text:
            host, port, path = _http(text, "url")
            return evolve(self, template="", host=host, port=port, path=path)
        if text:
            host, port = host_and_port(text, "address")
            return evolve(self, template="", host=host, port=port)
        return self

    def __str__(self) -> str:
        """What it asks: a URL, or a command line."""
        if self.template:
            return hide_text(self.template)
        if self.kind == "command":
            return join_words(self.arguments)
        address = join_host_and_port(self.host, self.port)
        return hide_text(f"{self.kind}://{address}{self.path}")


def _of_first(value: object, field: str) -> Any:
    """Return *value* as the first worker of a service has it."""
    return fill(value, "service", 0, field) if isinstance(value, str) else value


def _template(value: str) -> str:
    return value if is_template(value) else ""


def probe_or_none(value: Probe | None, field: str = "") -> Probe | None:
    """Return *value* if it is None or a `Probe`."""
    if value is not None and not isinstance(value, Probe):
        problem = (
            f"expected a Probe, such as Probe.http('http://127.0.0.1:8000/'), or None, "
            f"got {checks.shown(value)}"
        )
        raise SpecError(field, problem)
    return value


def _http(url: object, field: str) -> tuple[str, int, str]:
    if not isinstance(url, str):
        raise SpecError(field, f"expected a string, got {checks.shown(url)}")
    if url.lower().startswith("https:"):
        problem = "https is not supported; use Probe.command with a program that does"
        raise SpecError(field, problem)
    match = _URL.fullmatch(url)
    if match is None:
        problem = "expected http://HOST:PORT/PATH in printable ASCII"
        raise SpecError(field, f"{problem}, got {checks.shown(url)}")
    address, path = match[1], match[2] or "/"
    if not re.search(r":[0-9]*\Z", address):
        address = f"{address}:{_DEFAULT_PORT}"
    return *host_and_port(address, field), path
