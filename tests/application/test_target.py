"""Test which targets are rejected before anything starts."""

from __future__ import annotations

import asyncio
import functools
import types
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from trio_supervisor.application import Service
from trio_supervisor.errors import SpecError


async def asynchronous(worker: object) -> None:
    """A target for trio and asyncio."""


def plain(worker: object) -> None:
    """A target for the backend "sync"."""


def endless(worker: object) -> None:
    while True:
        pass


def delegating(worker: object) -> Any:
    return asynchronous(worker)


def constant(worker: object) -> int:
    return 0


def generator(worker: object) -> Iterator[int]:
    yield 1


async def async_generator(worker: object) -> AsyncIterator[int]:
    yield 1


@types.coroutine
def old_style(worker: object) -> Iterator[None]:
    yield


def passing_on(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap *function* like decorators for logging, retries and timing do."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return result  # noqa: RET504 (as most decorators are written)

    return wrapper


def running(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a plain function from an async one, as users of click do."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return asyncio.run(function(*args, **kwargs))

    return wrapper


def in_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make an async function from a plain one with a plain wrapper."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return asyncio.to_thread(function, *args)

    return wrapper


class Asynchronous:
    async def __call__(self, worker: object) -> None: ...

    async def method(self, worker: object) -> None: ...

    @classmethod
    async def of_class(cls, worker: object) -> None: ...

    @staticmethod
    async def static(worker: object) -> None: ...


class Plain:
    def __init__(self, worker: object = None) -> None: ...

    def __call__(self, worker: object) -> None: ...

    def method(self, worker: object) -> None: ...


class Awaitable:
    def __init__(self, worker: object) -> None: ...

    def __await__(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def manager(worker: object) -> AsyncIterator[None]:
    yield


async def more(worker: object, port: int) -> None: ...


ASYNC = [
    asynchronous,
    functools.partial(asynchronous),
    functools.partial(functools.partial(more, port=1)),
    Asynchronous(),
    Asynchronous().method,
    Asynchronous.of_class,
    Asynchronous.static,
    functools.partial(Asynchronous()),
    passing_on(asynchronous),
    passing_on(passing_on(asynchronous)),
    old_style,
]
PLAIN = [
    plain,
    endless,
    constant,
    functools.partial(plain),
    Plain(),
    Plain().method,
    passing_on(plain),
    lambda worker: None,
    Plain,
]
EITHER = [
    delegating,
    lambda worker: asynchronous(worker),
    functools.partial(lambda worker, port: more(worker, port), port=1),
    running(asynchronous),
    in_thread(plain),
    Awaitable,
    print,
]
NEITHER = [generator, async_generator, functools.partial(generator)]


def shown(target: Any) -> str:
    return getattr(target, "__qualname__", "") or type(target).__name__


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
@pytest.mark.parametrize("target", [*ASYNC, *EITHER], ids=shown)
def test_async_backend_accepts_async_target(target: Any, backend: Any) -> None:
    assert Service("web", target, backend=backend).target is target


@pytest.mark.parametrize("target", [*PLAIN, *EITHER], ids=shown)
def test_sync_backend_accepts_plain_target(target: Any) -> None:
    assert Service("web", target, backend="sync").target is target


@pytest.mark.parametrize("target", ASYNC, ids=shown)
def test_sync_backend_rejects_async_target(target: Any) -> None:
    with pytest.raises(SpecError) as caught:
        Service("web", target, backend="sync")
    assert caught.value.field == "target"
    assert "of service 'web' is an async function" in caught.value.problem


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
@pytest.mark.parametrize("target", PLAIN, ids=shown)
def test_async_backend_rejects_plain_target(target: Any, backend: Any) -> None:
    with pytest.raises(SpecError, match=rf"'web' is a .*backend=\"{backend}\" awaits"):
        Service("web", target, backend=backend)


@pytest.mark.parametrize("backend", ["trio", "asyncio", "sync"])
@pytest.mark.parametrize("target", NEITHER, ids=shown)
def test_every_backend_rejects_a_generator(target: Any, backend: Any) -> None:
    with pytest.raises(SpecError, match=r"generator function \(it has a yield\)"):
        Service("web", target, backend=backend)


def test_wrapper_of_a_generator_is_accepted() -> None:
    """It may be a context manager, for example."""
    Service("web", manager)


async def nothing() -> None: ...
async def two(worker: object, other: object) -> None: ...
async def by_keyword(*, worker: object) -> None: ...
async def defaults(worker: object, port: int = 1, *rest: int, key: int = 2) -> None: ...


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        (nothing, "nothing of service 'web' has the parameters (), and is called"),
        (two, "missing a required argument: 'other'"),
        (by_keyword, "too many positional arguments"),
        (functools.partial(asynchronous, None), "too many positional arguments"),
        (Asynchronous.method, "missing a required argument: 'worker'"),
    ],
)
def test_target_with_wrong_parameters_is_rejected(target: Any, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        Service("web", target)
    assert problem in caught.value.problem


@pytest.mark.parametrize("target", [defaults, passing_on(two), passing_on(nothing)])
def test_target_that_may_accept_a_worker_is_accepted(target: Any) -> None:
    """A wrapper may add or remove arguments."""
    Service("web", target)
