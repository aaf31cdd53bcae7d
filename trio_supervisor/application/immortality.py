"""Whether this interpreter can run ``immortal_preload``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, NamedTuple

from trio_supervisor.application import checks
from trio_supervisor.errors import SpecError

# Versions whose layout of objects is known.
_KNOWN: Final = ((3, 12), (3, 13))


class Interpreter(NamedTuple):
    """What decides how objects are laid out in memory."""

    implementation: str
    version: tuple[int, int]
    is_64_bit: bool
    is_free_threaded: bool
    is_debug: bool


def this_interpreter() -> Interpreter:
    """Return the interpreter that runs this."""
    import sysconfig  # only here: few applications need it

    return Interpreter(
        implementation=sys.implementation.name,
        version=sys.version_info[:2],
        is_64_bit=sys.maxsize > 2**32,
        is_free_threaded=bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        is_debug=hasattr(sys, "gettotalrefcount"),
    )


def immortality_problem(interpreter: Interpreter) -> str:
    """Return why objects cannot be made immortal there; empty: they can be."""
    if interpreter.implementation != "cpython":
        found = interpreter.implementation
    elif interpreter.version not in _KNOWN:
        found = "Python " + ".".join(map(str, interpreter.version))
    elif interpreter.is_free_threaded:
        found = "a free-threaded build"
    elif interpreter.is_debug:
        found = "a debug build"
    elif not interpreter.is_64_bit:
        found = "a 32-bit build"
    else:
        return ""
    return f"needs a 64-bit CPython 3.12 or 3.13, and this is {found}"


def immortal_flag(
    value: bool,
    field: str = "",
    interpreter: Callable[[], Interpreter] = this_interpreter,
) -> bool:
    """Return *value* if it is a flag that this interpreter can follow."""
    if checks.flag(value, field) and (problem := immortality_problem(interpreter())):
        raise SpecError(field, problem)
    return value
