"""Fill in ``{index}``, ``{name}`` and arithmetic with them, for each worker. Pure.

Only braces around names, numbers and operators are an expression. JSON, ``{}`` of
find(1), ``${VAR}`` of a shell and ``{print $1}`` of awk are left as they are, because
they contain other characters, or no letter.
"""

from __future__ import annotations

import ast
import copy
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from trio_supervisor.application.nearest import did_you_mean
from trio_supervisor.errors import SpecError

_BRACES: Final = re.compile(r"(?<!\$)(\{+)(?=[^{}]*[A-Za-z])([\w +*/%()-]{1,100})(\}+)")
_OPERATORS: Final[Mapping[type[ast.operator], Callable[[int, int], int]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
NAMES: Final = ("name", "service", "index")
"""What an expression may use: ``web.0``, ``web`` and ``0``."""
FILLED: Final = (
    "arguments",
    "pre_stop",
    "directory",
    "stdin",
    "log_file",
    "stderr_log_file",
    "environment",
    "startup",
    "readiness",
    "liveness",
)
"""Options that `filled` replaces expressions in."""
_Service = TypeVar("_Service")


@runtime_checkable
class Fillable(Protocol):
    """A value of an option that has expressions in it, such as a probe."""

    def filled(self, service: str, index: int) -> Any:
        """Return the value for worker *index* of *service*."""
        ...


def is_template(text: str) -> bool:
    """Return whether `fill` would change *text*."""
    return any(len(m[1]) == len(m[3]) for m in _BRACES.finditer(text))


def escaped(text: str) -> str:
    """Return the template for *text* itself."""
    return _BRACES.sub(_more_braces, text)


def fill(text: str, service: str, index: int, field: str = "") -> str:
    """Return *text* with the expressions in braces replaced by their values.

    Double braces become single ones: ``{{index}}`` is the text ``{index}``.

    Raises:
        SpecError: an expression is not valid.
    """

    def value(match: re.Match[str]) -> str:
        if len(match[1]) != len(match[3]):
            return match[0]
        if len(match[1]) > 1:
            return match[0][1:-1]
        values: dict[str, str | int] = {
            "name": f"{service}.{index}",
            "service": service,
            "index": index,
        }
        return str(_evaluate(match[2], values, field))

    return _BRACES.sub(value, text)


def filled(service: _Service, index: int) -> _Service:
    """Return *service* as it is for worker *index*: itself without ``expand``."""
    given: Any = service
    if not given.expand:
        return service
    found: Any = copy.copy(given)
    for field in FILLED:
        if (value := getattr(given, field, None)) is not None:
            setattr(found, field, _filled_value(value, given.name, index, field))
    return found  # type: ignore[no-any-return]


def check_templates(service: Any) -> None:
    """Check every expression of *service*.

    Raises:
        SpecError: an expression is not valid.
    """
    filled(service, 0)


def common_environment(service: Any) -> dict[str, str]:
    """Return the variables that are the same for all workers of *service*."""
    environment: dict[str, str] = service.environment
    if not service.expand:
        return environment
    first, second = (filled(service, index).environment for index in (0, 1))
    return {name: text for name, text in first.items() if second[name] == text}


def _filled_value(value: Any, service: str, index: int, field: str) -> Any:
    match value:
        case Fillable():
            try:
                return value.filled(service, index)
            except SpecError as exc:
                inner = f"{field}.{exc.field}" if exc.field else field
                raise SpecError(inner, exc.problem) from None
        case str():
            return fill(value, service, index, field)
        case tuple():
            return tuple(
                fill(item, service, index, f"{field}[{n}]")
                for n, item in enumerate(value)
            )
        case dict():
            return {
                key: fill(item, service, index, f"{field}[{key!r}]")
                for key, item in value.items()
            }
    return value


def _more_braces(match: re.Match[str]) -> str:
    return f"{{{match[0]}}}" if len(match[1]) == len(match[3]) else match[0]


def _evaluate(text: str, values: Mapping[str, str | int], field: str) -> str | int:
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if isinstance(tree, ast.Name) and tree.id in values:
            return values[tree.id]
        return _number(tree, values)
    except (SyntaxError, ArithmeticError, _NotArithmeticError) as exc:
        unknown = str(exc) if isinstance(exc, _NotArithmeticError) else ""
        hint = did_you_mean(unknown, NAMES) if unknown else ""
        what = f"unknown name {unknown!r} in " if unknown else "cannot compute "
        raise SpecError(
            field,
            f"{what}{{{text}}}{hint}; expected {', '.join(NAMES)} or arithmetic with "
            f"index such as {{8000+index}}; for braces as they are, write "
            f"{{{{{text}}}}}",
        ) from None


class _NotArithmeticError(Exception):
    """The expression contains something else; the text is an unknown name."""


def _number(node: ast.expr, values: Mapping[str, str | int]) -> int:
    match node:
        case ast.Constant(value=int() as number) if not isinstance(number, bool):
            return number
        case ast.Name(id="index"):
            return int(values["index"])
        case ast.Name(id=name):
            raise _NotArithmeticError("" if name in values else name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand, values)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_number(left, values), _number(right, values))
    raise _NotArithmeticError
