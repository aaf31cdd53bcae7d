"""Fields to typed objects and back; invalid values are refused by name."""

from __future__ import annotations

import json
import types
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.kits.wire_examples import CALLS, RESULTS, TYPES, default_of
from tests.kits.wire_strategies import (
    finite,
    ints,
    json_values,
    nested,
    objects,
    texts,
)
from trio_supervisor.errors import (
    BadRequestError,
    RemoteProtocolError,
    UnknownOperationError,
)
from trio_supervisor.wire import codec
from trio_supervisor.wire import controller_messages as c
from trio_supervisor.wire import messages as m
from trio_supervisor.wire import worker_messages as w
from trio_supervisor.wire import workers as info
from trio_supervisor.wire.limits import MAX_ITEMS
from trio_supervisor.wire.protocol import MODULES, OPERATIONS, Operation
from trio_supervisor.wire.session import CallReceived, Session

T = TypeVar("T")

EXAMPLES = {type(example): example for example in reversed((*CALLS, *RESULTS))}
"""The first example of each type: the one with every field set."""

# What JSON has, and what Python's types take of it. The oracle of strictness.
SAMPLES: dict[str, Any] = {
    "null": None,
    "bool": True,
    "int": 7,
    "float": 7.5,
    "string": "true",
    "empty string": "",
    "digits": "7",
    "array": [],
    "array of arrays": [[]],
    "object": {},
}


def _kinds(type_: Any) -> set[str]:
    if type_ is type(None):
        return {"null"}
    if get_origin(type_) in (Union, types.UnionType):
        return set().union(*map(_kinds, get_args(type_)))
    if attrs.has(type_) or get_origin(type_) is dict:
        return {"object"}
    if get_origin(type_) is tuple:
        return {"array"}
    return {
        bool: {"bool"},
        int: {"int"},
        float: {"int", "float"},
        str: {"string", "empty string", "digits"},
    }[type_]


def _hints(type_: type[attrs.AttrsInstance]) -> dict[str, Any]:
    hints = get_type_hints(type_)
    return {field.name: hints[field.name] for field in attrs.fields(type_)}


def _parse(type_: type[attrs.AttrsInstance], fields: dict[str, Any]) -> object:
    if issubclass(type_, Operation):
        return codec.parse_operation(type_.spec.do, fields)
    return codec.parse_result(fields, type_)


FIELDS = [
    pytest.param(type_, name, hint, id=f"{type_.__name__}.{name}")
    for type_ in sorted(TYPES, key=lambda type_: type_.__name__)
    for name, hint in _hints(type_).items()
]


@pytest.mark.parametrize(("type_", "name", "hint"), FIELDS)
def test_wrong_type_is_refused_by_field(
    type_: type[attrs.AttrsInstance], name: str, hint: Any
) -> None:
    """Values are never converted: "true" is not a bool, 7.5 not an int."""
    good = codec.to_fields(EXAMPLES[type_])
    for kind, value in SAMPLES.items():
        if kind in _kinds(hint):
            continue
        with pytest.raises((BadRequestError, RemoteProtocolError)) as caught:
            _parse(type_, good | {name: value})
        assert f"$.{name}" in str(caught.value), kind
        is_operation = issubclass(type_, Operation)
        assert isinstance(caught.value, BadRequestError) == is_operation


@pytest.mark.parametrize(("type_", "name", "hint"), FIELDS)
def test_field_without_default_is_required(
    type_: type[attrs.AttrsInstance], name: str, hint: Any
) -> None:
    """A field with a default is optional: older peers do not send it."""
    fields = codec.to_fields(EXAMPLES[type_])
    del fields[name]
    default = default_of(getattr(attrs.fields(type_), name))
    if default is attrs.NOTHING:
        with pytest.raises(
            (BadRequestError, RemoteProtocolError),
            match=rf"required field missing @ \$\.{name}",
        ):
            _parse(type_, fields)
    else:
        assert getattr(_parse(type_, fields), name) == default


@pytest.mark.parametrize("type_", TYPES, ids=lambda type_: type_.__name__)
def test_unknown_fields_are_ignored(type_: type[attrs.AttrsInstance]) -> None:
    """Newer peers send them."""
    example = EXAMPLES[type_]
    fields = codec.to_fields(example)
    assert _parse(type_, fields | {"new_in_2": [1, {"a": None}]}) == example


def test_all_problems_are_named_with_path() -> None:
    """All at once: a client need not fix one field per call."""
    (status,) = (r for r in RESULTS if isinstance(r, m.StatusReport) and r.workers)
    fields = codec.to_fields(status)
    fields["workers"][0]["restarts"] = "2"
    fields["connections"][0] |= {"process_id": True, "state": []}
    del fields["supervisor"]["uptime"]
    with pytest.raises(RemoteProtocolError) as caught:
        codec.parse_result(fields, m.StatusReport)
    assert sorted(str(caught.value).split("; ")) == [
        "expected an object, got [] @ $.connections[0].state",
        "expected int, got '2' @ $.workers[0].restarts",
        "expected int, got True @ $.connections[0].process_id",
        "required field missing @ $.supervisor.uptime",
    ]


@pytest.mark.parametrize(
    ("do", "arguments", "complaint"),
    [
        ("forward", {"timeout": 0}, r"'timeout' must be > 0"),
        ("forward", {"timeout": -1.0}, r"'timeout' must be > 0"),
        ("forward", {"timeout": 86_401}, r"'timeout' must be <= 86400"),
        ("forward", {"timeout": 10**400}, r"\$\.timeout"),
        ("forward", {"timeout": "60"}, r"expected a number, got '60' @ \$\.timeout"),
        ("restart", {"names": "web"}, r"expected an array, got 'web' @ \$\.names"),
        ("restart", {"names": ["a", 1]}, r"expected str, got 1 @ \$\.names\[1\]"),
        ("restart", {"names": ["a", ""]}, r"'names'"),
        ("stop", {"names": []}, r"'names'"),
        ("stop", {"names": [""]}, r"'names'"),
        ("stop", {"names": None}, r"expected an array, got None @ \$\.names"),
        ("start", {"names": []}, r"'names'"),
        ("start", {"names": {"web": 1}}, r"expected an array"),
        ("cancel", {"call": -1}, r"'call' must be >= 0"),
        ("restart", {"max_unavailable": 0}, r"'max_unavailable' must be >= 1"),
        ("scale", {"counts": {"web": "8"}}, r"expected int, got '8' @ \$\.counts"),
        ("scale", {"counts": {"web": True}}, r"expected int, got True @ \$\.counts"),
        (
            "scale",
            {"counts": ["web"]},
            r"expected an object, got \[.web.\] @ \$\.counts",
        ),
        ("health", {"kind": "ready"}, r"'kind' must be in"),
        ("profile", {"interval": 0}, r"'interval' must be >= 0.001"),
        ("memory_sample", {"duration": 0}, r"'duration' must be > 0"),
        ("memory_sample", {"engine": "gdb"}, r"'engine' must be in"),
        ("doctor", {"duration": 3601}, r"'duration' must be <= 3600"),
        ("logs", {"tail": -1}, r"'tail' must be >= 0"),
        ("logs", {"tail": 10_001}, r"'tail' must be <= 10000"),
        ("logs", {"names": [""]}, r"'names'"),
        ("update", {"workers": [], "restarts": -1}, r"'restarts' must be >= 0"),
        ("update", {"workers": {}}, r"expected an array, got {} @ \$\.workers"),
    ],
)
def test_argument_out_of_bounds_is_refused_by_name(
    do: str, arguments: dict[str, Any], complaint: str
) -> None:
    """As a bad request; the connection stays open."""
    with pytest.raises(BadRequestError, match=complaint):
        codec.parse_operation(do, {"operation": {}} | arguments)


def test_a_worker_record_counts_from_zero() -> None:
    """Of incarnations and of restarts there is no negative number; generations
    count from one.
    """
    fields = codec.to_fields(EXAMPLES[info.WorkerRecord]) | {"generation": 0}
    with pytest.raises(RemoteProtocolError, match="'generation' must be >= 1"):
        codec.parse_result(fields, info.WorkerRecord)
    for name in ("incarnation", "restarts"):
        fields = codec.to_fields(EXAMPLES[info.WorkerRecord]) | {name: -1}
        with pytest.raises(RemoteProtocolError, match=f"'{name}' must be >= 0"):
            codec.parse_result(fields, info.WorkerRecord)


def test_invalid_value_is_truncated() -> None:
    """For values of any length."""
    with pytest.raises(BadRequestError) as caught:
        codec.parse_operation("restart", {"reason": ["x" * 10_000]})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("do", ["", "Ping", "import_orders", "__class__", "x" * 10_000])
def test_unknown_operation_is_refused_by_name(do: str) -> None:
    """Operations that a service registers are not in this table."""
    with pytest.raises(
        UnknownOperationError, match=f"unknown operation '{do[:50]}"
    ) as e:
        codec.parse_operation(do, {})
    assert len(str(e.value)) < 200


def test_operation_names_are_unique() -> None:
    """Each name stands for exactly one operation."""
    assert {type_.spec.do: type_ for type_ in OPERATIONS.values()} == OPERATIONS
    declared = {
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Operation)
    }
    assert declared - {Operation} == set(OPERATIONS.values())


def test_array_of_names_is_limited() -> None:
    names = ["web"] * MAX_ITEMS
    codec.parse_operation("restart", {"names": names})
    with pytest.raises(BadRequestError, match="at most 10000 elements, got 10001"):
        codec.parse_operation("restart", {"names": [*names, "web"]})


def test_float_without_point_is_accepted() -> None:
    """JavaScript and Ruby may write 60.0 as 60; it is a float here."""
    forward = codec.parse_operation("forward", {"operation": {}, "timeout": 60})
    assert isinstance(forward, m.Forward)
    assert type(forward.timeout) is float


# Any object of any type.

names = st.lists(texts.filter(bool), min_size=1, max_size=3).map(tuple)
counts = st.integers(0, 2**63 - 1)
STRATEGIES: dict[Any, st.SearchStrategy[Any]] = {
    type(None): st.none(),
    bool: st.booleans(),
    int: counts,
    float: finite,
    str: texts,
    c.Names: names,
    dict[str, Any]: objects,
    dict[str, str]: st.dictionaries(texts, texts, max_size=4),
    dict[str, int]: st.dictionaries(texts, counts, max_size=4),
}
BOUNDS: dict[tuple[type, str], st.SearchStrategy[Any]] = {
    (m.Forward, "timeout"): st.floats(0, 86_400, exclude_min=True),
    (c.Restart, "max_unavailable"): st.integers(1, 2**63 - 1),
    (c.Reload, "canary"): st.none() | st.integers(1, 2**63 - 1),
    (c.Reload, "canary_for"): st.none() | st.floats(0, 86_400, exclude_min=True),
    (c.ReportDenial, "count"): st.integers(1, 2**63 - 1),
    (c.Health, "kind"): st.sampled_from(["startup", "readiness", "liveness"]),
    (c.Logs, "tail"): st.integers(0, 10_000),
    (w.MemoryDump, "path"): st.none()
    | texts.filter(bool).filter(lambda path: "\0" not in path),
    (w.MemorySample, "engine"): st.sampled_from(["snapshots", "memray"]),
    (w.Profile, "interval"): st.floats(0.001, 10),
    **{
        (type_, "duration"): st.floats(0, 3600, exclude_min=True)
        for type_ in (w.MemorySample, w.GarbageProfile, w.Profile, w.Doctor)
    },
    (info.WorkerRecord, "generation"): st.integers(1, 2**63 - 1),
    (info.WorkerStatus, "generation"): st.integers(1, 2**63 - 1),
}


def _values(type_: Any) -> st.SearchStrategy[Any]:
    if type_ in STRATEGIES:
        return STRATEGIES[type_]
    if attrs.has(type_):
        fields = {
            name: BOUNDS.get((type_, name), _values(hint))
            for name, hint in _hints(type_).items()
        }
        return st.builds(type_, **fields)
    if get_origin(type_) is tuple:
        return st.lists(_values(get_args(type_)[0]), max_size=2).map(tuple)
    return st.one_of([_values(t) for t in get_args(type_)])


@given(st.one_of([_values(type_) for type_ in OPERATIONS.values()]))
def test_operation_round_trip(operation: Operation) -> None:
    """Through both sessions, as bytes."""
    do, arguments = codec.unparse_operation(operation)
    _, line = Session(is_connecting=True).call(do, arguments)
    (event,) = Session(is_connecting=False).receive_data(line)
    assert isinstance(event, CallReceived)
    assert codec.parse_operation(event.do, event.arguments) == operation


RESULT_TYPES = [type_ for type_ in TYPES if not issubclass(type_, Operation)]


@given(st.one_of([_values(type_) for type_ in RESULT_TYPES]))
def test_result_round_trip(result: attrs.AttrsInstance) -> None:
    """As another JSON library writes and reads it."""
    fields = json.loads(json.dumps(codec.to_fields(result)))
    assert codec.parse_result(fields, type(result)) == result


argument_names = sorted({name for t in TYPES for name in _hints(t)})
arguments = st.dictionaries(st.sampled_from(argument_names), json_values | ints)


@given(st.sampled_from(sorted(OPERATIONS)) | st.text(), arguments)
@example("cancel", {"call": "\ud800"})
@example("\ud800", {})
def test_any_arguments_are_operation_or_bad_request(
    do: str, arguments: dict[str, Any]
) -> None:
    """Never another exception."""
    try:
        operation = codec.parse_operation(do, arguments)
    except (BadRequestError, UnknownOperationError):
        return
    assert operation.spec.do == do


@pytest.mark.parametrize(
    ("do", "arguments"),
    [
        pytest.param("register", {"state": nested(100_000)}, id="deep, no object"),
        pytest.param("stop", {"names": nested(100_000)}, id="deep, no names"),
        pytest.param("cancel", {"call": -(10**5_000)}, id="a number of 5,000 digits"),
        pytest.param("forward", {"timeout": 10**5_000}, id="past all floats"),
    ],
)
def test_unquotable_value_is_refused(do: str, arguments: dict[str, Any]) -> None:
    """The message is about an object whose repr() raises an error."""
    with pytest.raises(BadRequestError):
        codec.parse_operation(do, arguments)


@given(st.sampled_from(RESULT_TYPES), arguments)
def test_any_fields_are_result_or_remote_error(
    type_: type[attrs.AttrsInstance], fields: dict[str, Any]
) -> None:
    """Never another exception."""
    try:
        assert type(codec.parse_result(fields, type_)) is type_
    except RemoteProtocolError:
        return
