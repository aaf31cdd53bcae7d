"""Find where in the source an object is defined, without running its code."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from types import (
    AsyncGeneratorType,
    BuiltinFunctionType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    ModuleType,
    TracebackType,
    WrapperDescriptorType,
)
from typing import Any, Final, NamedTuple

from attrs import define, field

from trio_supervisor.diagnostics.stacks.source_lines import Sources

LRU_CACHE: Final = type(functools.lru_cache(len))
_HEAP_TYPE: Final = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: created at run time, as every Python class is."""

_mro_of: Final = type.__dict__["__mro__"].__get__
_dict_of_class: Final = type.__dict__["__dict__"].__get__
_flags_of: Final = type.__dict__["__flags__"].__get__
_qualname_of: Final = type.__dict__["__qualname__"].__get__
_module_of: Final = type.__dict__["__module__"].__get__
_dict_of_module: Final = vars(ModuleType)["__dict__"].__get__
_CODE_OF: Final = {
    id(CoroutineType): "cr_code",
    id(GeneratorType): "gi_code",
    id(AsyncGeneratorType): "ag_code",
}
_FRAME_OF: Final = {
    id(CoroutineType): "cr_frame",
    id(GeneratorType): "gi_frame",
    id(AsyncGeneratorType): "ag_frame",
}


def module_and_name(type_: type) -> tuple[str, str]:
    """Return the module and the qualified name of a type."""
    module = _module_of(type_)
    return module if type(module) is str else "?", _qualname_of(type_)


class SourceLine(NamedTuple):
    """A line of a source file."""

    file: str
    line: int


def suspended_frame(one: Any) -> FrameType | None:
    """Return the frame of a suspended coroutine or generator; else None."""
    name = _FRAME_OF.get(id(type(one)))
    frame: FrameType | None = None if name is None else getattr(one, name)
    return frame


def code_of(one: Any) -> CodeType | None:
    """Return the code object of a function, frame, coroutine and the like."""
    type_ = type(one)
    if type_ is FunctionType:
        return one.__code__  # type: ignore[no-any-return]  # its type was checked
    if type_ is FrameType:
        return one.f_code  # type: ignore[no-any-return]  # its type was checked
    if type_ is TracebackType:
        return one.tb_frame.f_code  # type: ignore[no-any-return]  # its type was checked
    if type_ is CodeType:
        return one  # type: ignore[no-any-return]  # its type was checked
    if (name := _CODE_OF.get(id(type_))) is not None:
        return getattr(one, name)  # type: ignore[no-any-return]  # its type was checked
    return None


def instance_dict(one: Any) -> dict[str, Any] | None:
    """Return the ``__dict__`` of *one*; None: it has none."""
    for class_ in _mro_of(type(one)):
        descriptor = _dict_of_class(class_).get("__dict__")
        if type(descriptor) is GetSetDescriptorType:
            found = descriptor.__get__(one)
            return found if type(found) is dict else None
    return None


def slots_of(one: Any) -> dict[str, Any]:
    """Return the values of the slots of *one*."""
    found = {}
    for class_ in _mro_of(type(one)):
        for name, descriptor in _dict_of_class(class_).items():
            if type(descriptor) is MemberDescriptorType:
                try:
                    found[name] = descriptor.__get__(one)
                except (AttributeError, SystemError):  # it is empty
                    continue
    return found


def is_python_class(type_: type) -> bool:
    """Whether a class was defined by Python code."""
    if not _flags_of(type_) & _HEAP_TYPE:
        return False
    for value in _dict_of_class(type_).values():
        kind = type(value)
        if kind is WrapperDescriptorType or kind is MethodDescriptorType:
            # C slots belong to the class itself, unless they were assigned to it.
            if value.__objclass__ is type_:
                return False
        elif kind is BuiltinFunctionType and value.__self__ is type_:
            return False
    return True


@define(eq=False)
class DefinitionFinder:
    """Finds where classes, functions and variables are defined, with a cache."""

    sources: Sources = field(factory=Sources)
    _modules: dict[str, dict[str, Any]] = field(init=False)
    _by_dict: dict[int, dict[str, Any]] = field(init=False)
    _packages: dict[str, str] = field(factory=dict, init=False)
    _classes: dict[int, SourceLine | None] = field(factory=dict, init=False)
    _variables: dict[int, dict[int, str]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._modules = {
            name: _dict_of_module(module)
            for name, module in list(sys.modules.items())
            if issubclass(type(module), ModuleType) and type(name) is str
        }
        self._by_dict = {id(names): names for names in self._modules.values()}
        for name, names in self._modules.items():
            if file := _file_of(names):
                self._packages.setdefault(file, name.partition(".")[0])

    def of(self, one: Any) -> SourceLine | None:
        """Return where *one* is defined; None: it has no definition.

        A class and its instances: the class definition. A function, coroutine,
        generator or frame: the definition of its code. A wrapper such as lru_cache():
        the wrapped function. A module: its first line.
        """
        if (code := code_of(one)) is not None:
            return SourceLine(code.co_filename, code.co_firstlineno)
        type_ = type(one)
        if issubclass(type_, type):
            return self.of_class(one)
        if issubclass(type_, ModuleType):
            file = _file_of(_dict_of_module(one))
            return SourceLine(file, 1) if file else None
        if (found := self.of_class(type_)) is not None:
            return found
        if type_ is LRU_CACHE:
            wrapped = (instance_dict(one) or {}).get("__wrapped__")
            return None if wrapped is None else self.of(wrapped)
        return None

    def of_class(self, type_: type) -> SourceLine | None:
        """Return where a class is defined; None: in C."""
        if id(type_) not in self._classes:
            self._classes[id(type_)] = self._find_class(type_)
        return self._classes[id(type_)]

    def module_of(self, namespace: object) -> str | None:
        """Return the name of the module that has *namespace* as its ``__dict__``."""
        names = self._by_dict.get(id(namespace))
        if names is None:
            return None
        name = names.get("__name__")
        return name if type(name) is str else "a module"

    def of_variable(
        self, namespace: Any, value: object
    ) -> tuple[str, SourceLine | None]:
        """Return the name of a module's variable, and where it is first assigned."""
        if id(namespace) not in self._variables:
            self._variables[id(namespace)] = {
                id(value): name
                for name, value in namespace.items()
                if type(name) is str
            }
        name = self._variables[id(namespace)].get(id(value), "?")
        file = _file_of(namespace)
        return name, SourceLine(
            file, self.sources.line_of(file, name)
        ) if file else None

    def find_variable(self, value: object) -> tuple[str | None, SourceLine | None]:
        """Return a module that has *value* as a variable, and where it is assigned."""
        for name, names in self._modules.items():
            if any(one is value for one in names.values()):
                return name, self.of_variable(names, value)[1]
        return None, None

    def package_of(self, line: SourceLine | None) -> str:
        """Return the top-level package that a file belongs to."""
        if line is None:
            return "(unknown)"
        return self._packages.get(line.file, "(no module)")

    def _find_class(self, type_: type) -> SourceLine | None:
        if not is_python_class(type_):
            return None
        names, qualname = _dict_of_class(type_), _qualname_of(type_)
        file = _file_of_methods(names, qualname)
        if file is None:
            module = names.get("__module__")
            if type(module) is not str or module not in self._modules:
                return None
            if (file := _file_of(self._modules[module])) is None:
                return None
        first = names.get("__firstlineno__")  # since 3.13
        if type(first) is int:
            return SourceLine(file, first)
        return SourceLine(file, self.sources.line_of(file, qualname))


def _file_of_methods(names: Mapping[str, Any], qualname: str) -> str | None:
    # Some packages set __module__ of their classes to a module that re-exports them.
    for value in names.values():
        if type(value) is FunctionType and value.__qualname__.startswith(qualname):
            file = value.__code__.co_filename
            if not file.startswith("<"):  # generated by attrs or dataclasses
                return file
    return None


def _file_of(names: dict[str, Any]) -> str | None:
    file = names.get("__file__")
    return file if type(file) is str else None
