"""Convert operations and results to the fields of a message and back, with cattrs."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sized
from enum import Enum
from typing import Any, Literal, TypeVar, get_args, get_origin

import cattrs
from cattrs.errors import IterableValidationNote
from cattrs.preconf.orjson import make_converter
from cattrs.v import format_exception

from trio_supervisor.errors import (
    BadRequestError,
    RemoteProtocolError,
    UnknownOperationError,
)
from trio_supervisor.wire.brief import brief, cut
from trio_supervisor.wire.json_tree import Object
from trio_supervisor.wire.limits import MAX_ITEMS, MAX_NAME
from trio_supervisor.wire.messages import (
    Forward,
    Ping,
    Register,
    RegisterReport,
    Status,
    StatusReport,
    Update,
    Workers,
)
from trio_supervisor.wire.protocol import OPERATIONS, Operation

T = TypeVar("T")


def _exactly(value: object, type_: type) -> object:
    # By default cattrs *converts* primitives: "false" becomes True and 3.7 becomes 3.
    # On the wire a wrong type is a bug of the peer: report it.
    if type(value) is not type_:
        raise TypeError(f"expected {type_.__name__}, got {brief(value)}")
    return value


def _number(value: object, _: type) -> float:
    # A peer in another language may write 3.0 as 3. To Python, bool is an int.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, got {brief(value)}")
    return float(value)


def _object(value: object, _: type) -> Object:
    if type(value) is not dict:
        raise TypeError(f"expected an object, got {brief(value)}")
    return value


def _is_array(type_: object) -> bool:
    return get_origin(type_) is tuple and get_args(type_)[-1] is Ellipsis


def _array_hook(
    type_: type, converter: cattrs.BaseConverter
) -> Callable[[object, type], tuple[object, ...]]:
    item_type = get_args(type_)[0]
    structure_item = converter.get_structure_hook(item_type)
    limit = MAX_ITEMS if item_type is str else None

    def structure(value: object, _: type) -> tuple[object, ...]:
        # Strings and objects are iterable: cattrs would make "web.0" five names.
        if type(value) is not list:
            raise TypeError(f"expected an array, got {brief(value)}")
        _check_size(value, limit)
        items = []
        # Stop at the first bad item: cattrs itself keeps an error for each, which takes
        # 1.7 GB for a megabyte of numbers.
        for index, item in enumerate(value):
            try:
                items.append(structure_item(item, item_type))
            except Exception as exc:
                raise _at(exc, index, type_, item_type) from None
        return tuple(items)

    return structure


def _numbers(value: object, type_: type) -> dict[str, int]:
    """Return an object of integers; raise for the first value that is not one."""
    found = _object(value, type_)
    _check_size(found, MAX_ITEMS)
    for key, item in found.items():
        try:
            if len(key) > MAX_NAME:
                raise ValueError(f"a name is longer than {MAX_NAME} characters")
            _exactly(item, int)
        except Exception as exc:
            raise _at(exc, key[:MAX_NAME], type_, int) from None
    return found


def _check_size(value: Sized, limit: int | None) -> None:
    if limit is not None and len(value) > limit:
        raise ValueError(f"expected at most {limit} elements, got {len(value)}")


def _at(
    exc: Exception, index: int | str, type_: type, item_type: type
) -> cattrs.IterableValidationError:
    """Wrap *exc* in cattrs' error for the element at *index*."""
    note = f"Structuring {type_} @ index {index!r}"
    # Like cattrs: `add_note` would accept only strings.
    notes = [
        *getattr(exc, "__notes__", ()),
        IterableValidationNote(note, index, item_type),
    ]
    exc.__notes__ = notes
    return cattrs.IterableValidationError(note, [exc], type_)


def _is_literal(type_: object) -> bool:
    return get_origin(type_) is Literal


def _literal(value: object, type_: type) -> object:
    # To Python, True == 1; and the error of cattrs does not name the argument.
    choices = {
        repr(plain := one.value if isinstance(one, Enum) else one): (plain, one)
        for one in get_args(type_)
    }
    for plain, one in choices.values():
        if type(plain) is type(value) and plain == value:
            return one
    raise ValueError(f"expected {' or '.join(choices)}, got {brief(value)}")


def _bytes(value: object, _: type) -> bytes:
    if type(value) is not str:
        raise TypeError(f"expected base64, got {brief(value)}")
    try:
        return b64decode(value, validate=True)
    except ValueError:
        raise ValueError(f"expected base64, got {brief(value)}") from None


def _base64(value: bytes | bytearray) -> str:
    return b64encode(value).decode()


def make_strict_converter() -> cattrs.Converter:
    """Return a converter that refuses wrong types and ignores unknown fields.

    Bytes are base64 strings. By default cattrs uses base85, which few peers can read,
    and accepts nearly every string as such.
    """
    converter = make_converter()
    for primitive in (str, int, bool):
        converter.register_structure_hook(primitive, _exactly)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(bytes, _bytes)
    converter.register_unstructure_hook(bytes, _base64)
    converter.register_unstructure_hook(bytearray, _base64)
    converter.register_structure_hook_func(lambda t: t == dict[str, Any], _object)
    converter.register_structure_hook_func(lambda t: t == dict[str, int], _numbers)
    converter.register_structure_hook_func(_is_literal, _literal)
    converter.register_structure_hook_factory(_is_array, _array_hook)
    return converter


_converter = make_strict_converter()
_URGENT = (
    *(Ping, Register, RegisterReport, Forward, Update),
    *(Status, Workers, StatusReport),
)


def prepare() -> None:
    """Build the converters of the messages that a start waits for.

    cattrs builds a converter at the first message of its type; diagnostics can wait.
    """
    for type_ in _URGENT:
        _converter.get_structure_hook(type_)
        _converter.get_unstructure_hook(type_)


def parse_operation(do: str, arguments: Mapping[str, object]) -> Operation:
    """Return the operation *do* with *arguments*.

    Raises:
        UnknownOperationError: the protocol has no operation *do*.
        BadRequestError: *arguments* are invalid; the message names each bad field.
    """
    if (type_ := OPERATIONS.get(do)) is None:
        raise UnknownOperationError(f"unknown operation {brief(do)}")
    return _structure(arguments, type_, BadRequestError)


def unparse_operation(operation: Operation) -> tuple[str, Object]:
    """Return the ``do`` and the arguments of *operation*."""
    return operation.spec.do, to_fields(operation)


def to_fields(value: object) -> Object:
    """Return the fields of the attrs object *value* as JSON values."""
    fields: Object = _converter.unstructure(value)
    return fields


def parse_result(fields: Mapping[str, object], type_: type[T]) -> T:
    """Return the fields of an answer as an object of *type_*.

    Raises:
        RemoteProtocolError: *fields* are invalid; the message names each bad field.
    """
    return _structure(fields, type_, RemoteProtocolError)


def describe_error(exc: BaseException, type_: type | None) -> str:
    """Return the text of one error, for `cattrs.transform_error`."""
    # Our hooks and attrs' validators are more precise than "invalid value".
    if type(exc) in (TypeError, ValueError) and exc.args:
        return cut(str(exc.args[0]))
    return cut(format_exception(exc, type_))


def _structure(
    fields: Mapping[str, object], type_: type[T], error: type[Exception]
) -> T:
    try:
        return _converter.structure(fields, type_)
    except cattrs.BaseValidationError as exc:
        problems = cattrs.transform_error(exc, format_exception=describe_error)
        raise error(cut("; ".join(problems))) from None
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise error(cut(f"{type(exc).__name__}: {exc}")) from None
