"""What an application declares, read by a process of its own.

``python -m trio_supervisor.process.declare SOURCE RESULT`` with two descriptors of
files: the pickled `Reference`, and where the pickled `Declared` goes, or the error. The
controller learns so what a fresh import declares, and never imports anything twice.
"""

from __future__ import annotations

import copy
import os
import pickle
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from attrs import frozen

from trio_supervisor.errors import SupervisorError, TargetError
from trio_supervisor.policy.reload import ServiceFacts
from trio_supervisor.process.child import describe_exit
from trio_supervisor.process.documents import interpreter_flags, open_document
from trio_supervisor.process.exec import spawn_exec
from trio_supervisor.process.fingerprint import fingerprint
from trio_supervisor.process.preload import load_source
from trio_supervisor.process.sources import Reference
from trio_supervisor.process.stopping import StopPlan, stop
from trio_supervisor.spec import Application, Group, Service, facts_of

_AT_ONCE: Final = StopPlan(timeout=0.0)


class TargetName:
    """Stands for a function that is not imported here; not to be called."""

    def __init__(self, target: Any) -> None:
        self.__module__ = str(getattr(target, "__module__", ""))
        self.__qualname__ = str(getattr(target, "__qualname__", repr(target)))

    def __call__(self, *_: object) -> None:
        raise TypeError(f"{self!r} is only a name")

    def __repr__(self) -> str:
        return f"{self.__module__}:{self.__qualname__}"


@frozen(kw_only=True)
class Declared:
    """What an import declares."""

    application: Application
    """Without functions and monitors: these are names here."""
    facts: Mapping[str, ServiceFacts]


def declared(application: Application) -> Declared:
    """Return what *application* declares, without anything of its code."""
    facts = {
        service.name: facts_of(
            service,
            fingerprint(service.target.__module__)
            if isinstance(service, Service) and hasattr(service.target, "__module__")
            else "",
        )
        for service in application.services
    }
    plain = copy.copy(application)
    plain.monitors = ()
    plain.root = _plain_group(application.root)
    by_name = {item.name: item for item in _services_of(plain.root)}
    plain.services = tuple(by_name[item.name] for item in application.services)
    return Declared(application=plain, facts=facts)


def _plain_group(group: Group) -> Group:
    plain = copy.copy(group)
    plain.children = tuple(
        _plain_group(child) if isinstance(child, Group) else _plain_service(child)
        for child in group.children
    )
    return plain


def _plain_service(service: Any) -> Any:
    plain = copy.copy(service)
    if isinstance(service, Service):
        plain.target = TargetName(service.target)
    return plain


def _services_of(group: Group) -> list[Any]:
    found: list[Any] = []
    for child in group.children:
        found += _services_of(child) if isinstance(child, Group) else [child]
    return found


async def declare(source: Reference, environment: Mapping[str, str]) -> Declared:
    """Import *source* in a process of its own, and return what it declares.

    A cancellation ends that process.

    Raises:
        TargetError: it cannot be imported, or declares something wrong; the message is
            that of `load_application`.
        OSError: no process can be started.
    """
    with tempfile.TemporaryFile() as result:
        with open_document(pickle.dumps(source)) as document:
            numbers = [document, result.fileno()]
            process = await spawn_exec(
                [
                    sys.executable,
                    *interpreter_flags(),
                    "-m",
                    "trio_supervisor.process.declare",
                    *map(str, numbers),
                ],
                environment=environment,
                inherit=numbers,
            )
        try:
            code = await process.wait()
        finally:
            await stop(process, _AT_ONCE)
            process.close()
        result.seek(0)
        data = result.read()
    if not data:
        how = describe_exit(code)
        raise TargetError(f"{source.target}: the import ended its process ({how})")
    answer = pickle.loads(data)  # from our own child, by a file that only it has
    if not isinstance(answer, Declared):
        raise TargetError(str(answer))
    return answer


def main() -> None:
    """Import, and write down what is declared."""
    document, result = map(int, sys.argv[1:3])
    sys.argv[1:] = []
    with os.fdopen(document, "rb") as file:
        file.seek(0)
        source = pickle.load(file)
    answer: Declared | str
    try:
        answer = declared(load_source(source))
    except SupervisorError as exc:
        answer = str(exc)
    data = pickle.dumps(answer)
    with os.fdopen(result, "wb") as file:
        file.write(data)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # it may be closed, or none
            stream.flush()
    os._exit(0)  # whatever threads the import has started


if __name__ == "__main__":
    # Under its own name: what it pickles is unpickled elsewhere.
    from trio_supervisor.process.declare import main as named_main

    named_main()
