"""Close the constructors of classes whose objects only this package makes."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


class NoPublicConstructor(type):
    """Metaclass of classes that the package constructs by `_create` alone.

    A public constructor would make every parameter of it a promise; trio closes those
    of its own classes in the same way.
    """

    def __call__(cls, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError(
            f"{cls.__qualname__} has no public constructor; see its documentation "
            f"for what makes one"
        )

    def _create(cls: type[T], *args: Any, **kwargs: Any) -> T:
        return super().__call__(*args, **kwargs)  # type: ignore[misc,no-any-return]
