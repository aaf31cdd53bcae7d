"""Check that a backend can run a target, as far as that is certain. Pure.

A plain function may return a coroutine, and a wrapper may run one. The worker checks
what cannot be known before the call, with the same messages.
"""

from __future__ import annotations

import dis
import functools
import inspect
import re
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any, Final, Literal, TypeAlias

from trio_supervisor.application import checks
from trio_supervisor.errors import SpecError

Kind: TypeAlias = Literal[
    "async", "async generator", "generator", "plain", "class", "unknown"
]

# A wrapper that names one of these may turn a coroutine into a result, or a plain
# function into a coroutine: `asyncio.run`, `to_thread`, `async_to_sync`, a portal.
_TURNS: Final = re.compile(
    r"run|sync|thread|loop|portal|await|future|task|greenlet|executor|trio|spawn",
    re.IGNORECASE,
)
_OWN: Final = __name__.partition(".")[0]
_CONSTANTS: Final = ("LOAD_CONST", "LOAD_SMALL_INT")
# Nesting of partials, methods and callable objects; deeper ones are "unknown".
_MAX_DEPTH: Final = 16


def check_target(field: str, target: Any, backend: str, service: str) -> None:
    """Check that *target* can be called with a worker, and run by *backend*.

    Args:
        service: Name of the service, for the error message.

    Raises:
        SpecError: it certainly cannot.
    """
    if not callable(target):
        raise SpecError(field, f"expected a function, got {checks.shown(target)}")
    if type(target).__module__.partition(".")[0] == _OWN:
        return  # a TargetName: the target was checked where it was imported
    problem = _mismatch(kind_of(target), backend) or _parameters_problem(target)
    if problem:
        raise SpecError(field, f"{name_of(target)} of service {service!r} {problem}")


def name_of(target: Any) -> str:
    """Return how an error message names *target*."""
    inner = unbound(target)
    name = getattr(inner, "__qualname__", None) or getattr(inner, "__name__", None)
    return str(name) if name else checks.shown(target)


def kind_of(target: Any) -> Kind:
    """Return what kind of callable *target* is."""
    for _ in range(_MAX_DEPTH):
        if inspect.iscoroutinefunction(target):
            return "async"
        if inspect.isasyncgenfunction(target):
            return "async generator"
        if isinstance(target, functools.partial | MethodType):
            target = unbound(target)
        elif isinstance(target, FunctionType):
            if not hasattr(target, "__wrapped__"):
                return _kind_of_function(target)
            if not _passes_on(target):
                return "unknown"
            target = target.__wrapped__
        elif isinstance(target, type):
            return "unknown" if hasattr(target, "__await__") else _kind_of_class(target)
        elif isinstance(type(target).__call__, FunctionType):
            target = type(target).__call__
        else:
            return "unknown"
    return "unknown"


def _mismatch(kind: Kind, backend: str) -> str:
    is_sync = backend == "sync"
    match kind:
        case "async" if is_sync:
            return (
                'is an async function, and backend="sync" calls a plain one; '
                'give backend="trio" or backend="asyncio"'
            )
        case "async generator" | "generator":
            return (
                f"is an {kind} function" if kind[0] == "a" else f"is a {kind} function"
            ) + " (it has a yield): a call runs none of its code; remove the yield"
        case "plain" if not is_sync:
            return (
                f'is a plain function, and backend="{backend}" awaits an async one; '
                f'write "async def", or give backend="sync"'
            )
        case "class" if not is_sync:
            return f'is a class, and backend="{backend}" awaits an async function'
    return ""


def _kind_of_function(function: FunctionType) -> Kind:
    flags = function.__code__.co_flags
    if flags & inspect.CO_ITERABLE_COROUTINE:
        return "async"
    if flags & inspect.CO_GENERATOR:
        return "generator"
    return "unknown" if _returns_something(function.__code__) else "plain"


def _kind_of_class(kind: type) -> Kind:
    # With a metaclass or a __new__ of its own, a call may return any object.
    has_own = any("__new__" in vars(base) for base in kind.__mro__[:-1])
    return "class" if type(kind) is type and not has_own else "unknown"


def _returns_something(code: CodeType) -> bool:
    """Return whether a function with *code* may return anything but a constant."""
    previous = ""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "RETURN_VALUE" and previous not in _CONSTANTS:
            return True
        if instruction.opname not in ("NOP", "CACHE"):
            previous = instruction.opname
    return False


def _passes_on(wrapper: FunctionType) -> bool:
    """Return whether *wrapper* returns what the wrapped function returns.

    It does not if it is a generator, as with contextlib.contextmanager, or if it uses a
    name such as ``run`` that suggests that it runs a coroutine.
    """
    code = wrapper.__code__
    if code.co_flags & inspect.CO_GENERATOR:
        return False
    return not any(_TURNS.search(name) for name in _names(code))


def _names(code: CodeType) -> Iterator[str]:
    yield from (*code.co_names, *code.co_freevars, *code.co_varnames)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _parameters_problem(target: Any) -> str:
    """Return why *target* cannot be called with one worker, if that is certain."""
    if hasattr(target, "__signature__"):
        return ""  # it may differ from what the target really accepts
    try:
        signature = inspect.signature(target, follow_wrapped=False)
    except (ValueError, TypeError):
        return ""  # a builtin without a signature
    try:
        signature.bind(None)
    except TypeError as exc:
        parameters = signature.replace(return_annotation=signature.empty)
        return f"has the parameters {parameters}, and is called with a worker: {exc}"
    return ""


def unbound(target: Any) -> Any:
    """Return the function inside *target*, a partial or a method of it."""
    while True:
        if isinstance(target, functools.partial):
            target = target.func
        elif isinstance(target, MethodType):
            target = target.__func__
        else:
            return target
