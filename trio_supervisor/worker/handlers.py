"""Keep the operations that a service adds with ``worker.handle(name, function)``."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, get_type_hints

import cattrs
import orjson
from attrs import define, field, frozen

from trio_supervisor.diagnostics.stacks.values import type_name
from trio_supervisor.errors import (
    BadRequestError,
    OperationFailedError,
    SpecError,
    UnknownOperationError,
)
from trio_supervisor.wire.codec import describe_error, make_strict_converter
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.protocol import OPERATIONS

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


@frozen(kw_only=True)
class OperationHandler:
    """A function that answers an operation, and its parameters."""

    name: str
    function: Callable[..., Any]
    parameters: Mapping[str, inspect.Parameter]
    hints: Mapping[str, Any]

    def describe(self) -> Object:
        """Return its name, parameters and docstring, for callers."""
        return {
            "name": self.name,
            "parameters": {
                name: _describe(parameter, self.hints.get(name))
                for name, parameter in self.parameters.items()
            },
            "description": inspect.getdoc(_described(self.function)) or "",
        }

    def bind(self, arguments: Mapping[str, object]) -> dict[str, Any]:
        """Convert *arguments* to the types that the function declares.

        Raises:
            BadRequestError: they do not fit; the message names each bad argument.
        """
        problems = [f"{name}: unknown" for name in arguments.keys() - self.parameters]
        bound = {}
        for name, parameter in self.parameters.items():
            if name not in arguments:
                if parameter.default is inspect.Parameter.empty:
                    problems.append(f"{name}: missing")
                continue
            try:
                bound[name] = _structure(arguments[name], self.hints.get(name, Any))
            except BadRequestError as exc:
                problems.append(f"{name}: {exc}")
        if problems:
            raise BadRequestError(f"{self.name}: {'; '.join(sorted(problems))}")
        return bound


@define(eq=False)
class Handlers:
    """The handlers of one worker."""

    _by_name: dict[str, OperationHandler] = field(factory=dict, init=False)

    def add(self, name: str, function: Callable[..., Any]) -> None:
        """Answer calls of *name* with *function*; see `Worker.handle`.

        Raises:
            SpecError: the name or the function cannot be used.
        """
        _check_name(name)
        if not callable(function):
            raise SpecError("function", f"expected a function, got {function!r:.80}")
        self._by_name[name] = OperationHandler(
            name=name,
            function=function,
            parameters=_parameters_of(function),
            hints=_hints_of(function),
        )

    def find(self, name: str) -> OperationHandler:
        """Return the handler of *name*.

        Raises:
            UnknownOperationError: there is no handler of that name.
        """
        if (handler := self._by_name.get(name)) is None:
            raise UnknownOperationError(
                f"a worker does not answer {name!r:.80}; no handler has that name"
            )
        return handler

    def describe(self) -> list[Object]:
        """Return the description of each handler."""
        return [handler.describe() for handler in self._by_name.values()]


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SpecError(
            "name", f"expected lowercase letters, digits and '_', got {name!r:.80}"
        )
    if name in OPERATIONS:
        raise SpecError("name", f"{name!r} is a built-in operation")


def _parameters_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        parameters = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # for example of many functions written in C
        problem = f"{function!r:.80} does not declare its parameters; wrap it"
        raise SpecError("function", problem) from None
    for parameter in parameters.values():
        if parameter.kind in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ):
            problem = f"parameter {parameter} cannot be passed by name"
            raise SpecError("function", problem)
    return parameters


def _hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(_annotated(function))
    except Exception as exc:  # an annotation may be any expression
        problem = f"cannot evaluate its annotations: {exc}"
        raise SpecError("function", problem) from exc


def _described(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function inside partials, which has the docstring."""
    while isinstance(function, partial):
        function = function.func
    return function


def _annotated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that has the annotations of the parameters of *function*."""
    function = _described(function)
    if inspect.isroutine(function):
        return function
    found: Any = type(function).__call__
    if isinstance(function, type):
        found = function.__init__  # type: ignore[misc]  # of this class, no subclass
    return found  # type: ignore[no-any-return]  # a callable in any case


_converter: Final = make_strict_converter()


def _structure(value: object, type_: Any) -> Any:
    if type_ is Any:
        return value
    try:
        return _converter.structure(value, type_)
    except cattrs.BaseValidationError as exc:
        problems = cattrs.transform_error(exc, format_exception=describe_error)
        raise BadRequestError("; ".join(problems)) from None
    except cattrs.StructureHandlerNotFoundError as exc:
        problem = f"cannot convert a JSON value to {exc.type_}"
        raise BadRequestError(problem) from None
    except Exception as exc:  # a type of the application may raise anything
        raise BadRequestError(describe_error(exc, type_)) from None


def to_result(name: str, result: object) -> Object:
    """Return the fields of the answer for what the handler of *name* returned.

    Raises:
        OperationFailedError: JSON has no such value; the message says where it is.
    """
    try:
        plain = _converter.unstructure(result)
        misfit = _misfit(plain)
    except RecursionError:
        misfit = " is nested too deeply, or in itself"
    if misfit is not None:
        problem = (
            f"{name!r} returned a value that JSON cannot represent: its result{misfit}"
        )
        raise OperationFailedError(problem)
    return {"data": plain}


def _misfit(value: object) -> str | None:
    """Return where the first value without JSON equivalent is, and what it is."""
    if value is None or isinstance(value, str | bool):
        return None
    if isinstance(value, dict):
        for key, item in value.items():
            if (found := _misfit(item)) is not None:
                return f".{key:.60}{found}"
    elif isinstance(value, list) or type(value) is tuple:
        for number, item in enumerate(value):
            if (found := _misfit(item)) is not None:
                return f"[{number}]{found}"
    elif type(value) is float:
        # It would be sent as null, which means "no value".
        return None if math.isfinite(value) else f" is {value}"
    elif type(value) is int and not -(2**63) <= value < 2**64:
        return " is an integer of more than 64 bits"
    else:
        try:
            orjson.dumps(value)
        except TypeError:
            return f" is of type {type_name(type(value))}"
    return None


def _describe(parameter: inspect.Parameter, hint: Any) -> str:
    type_ = "any" if hint is None else getattr(hint, "__name__", None) or str(hint)
    if parameter.default is inspect.Parameter.empty:
        return type_
    return f"{type_} = {parameter.default!r:.60}"
