"""What entities publish: a function of their state, declared in the class, whose value the read model holds.

The declared type of the value says how it travels between nodes: as MessagePack, checked against the type by whoever
reads it. The class definition refuses a type that has no such form.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import deepcopy
from functools import cache, partial
from typing import (
    Any,
    Final,
    Generic,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

import msgspec

from actorkit.errors import DeclarationError
from actorkit.persistence.encodable import UNDECODABLE, unencodable
from actorkit.persistence.indexes import NOTHING_INDEXED, Index, declared_indexes
from actorkit.persistence.signatures import is_value

__all__ = ["Published", "published"]

A = TypeVar("A")
R = TypeVar("R")

_VERSION_MAX: Final = 0xFFFF
"""A stamp has two bytes for it."""

_encode: Final = msgspec.msgpack.Encoder().encode


class Published(Generic[A, R]):
    """What ``@published`` leaves in the class: a function of the state whose value the read model holds."""

    def __init__(self, function: Callable[[Any], Any], *, version: int = 1, indexes: Sequence[Index] = ()) -> None:
        if not 1 <= version <= _VERSION_MAX:
            raise DeclarationError(
                f"the version of what {function.__name__} publishes is 1 to {_VERSION_MAX}, not {version}"
            )
        self.function = function
        self.name = function.__name__
        self.version = version
        self.owner: type[Any] | None = None
        self.type: Any = None
        """The declared type of the value, without ``None``; known once the class has been defined."""
        self.indexed = NOTHING_INDEXED
        """By which fields the read model finds entries; known once the class has been defined."""
        self._indexes = indexes
        self._decode: Callable[[bytes], R] | None = None
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self.owner = owner
        self.name = name

    def declare(self, cls: type[Any], namespace: Mapping[str, Any]) -> None:
        """Takes the type of the value from the method's annotation. Raises ``DeclarationError`` where it cannot."""
        where = f"{cls.__qualname__}.{self.name}"
        self.type = _declared_type(where, self.function, namespace)
        try:
            strange = unencodable(self.type)
            self._decode = msgspec.msgpack.Decoder(self.type).decode
        except (TypeError, NameError) as error:
            raise DeclarationError(f"what {where} publishes cannot travel between nodes: {error}") from error
        if strange is not None:
            raise DeclarationError(
                f"what {where} publishes cannot travel between nodes: {strange} has no form in MessagePack; use "
                "numbers, text, bytes, dates, enums, records, and lists, sets or maps of these"
            )
        self.indexed = declared_indexes(where, self.type, self._indexes)

    def value(self, actor: Any) -> Any:
        """What the actor publishes now. Nothing mutable in it is shared with the state."""
        return _detached(self.function(actor))

    def encode(self, value: R) -> bytes:
        """The value as it travels. Raises ``DeclarationError`` where it has no form in MessagePack."""
        try:
            return _encode(value)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise DeclarationError(f"{value!r}, which {self.name} published, cannot be encoded: {error}") from error

    def decode(self, data: bytes) -> R:
        """The value that ``encode`` made bytes of. Raises ``ValueError`` where they are none of the declared type."""
        if self._decode is None:
            raise DeclarationError(f"{self.name} is not a method of a persistent actor")
        try:
            return self._decode(data)
        except UNDECODABLE as error:
            raise ValueError(f"no value of what {self.name} publishes: {error}") from error

    def check(self, value: R | None) -> None:
        """Raises ``DeclarationError`` unless the value is of its declared type, as others will insist."""
        if value is None:
            return
        try:
            self.decode(self.encode(value))
        except ValueError as error:
            raise DeclarationError(f"{value!r} is not what {self.name} declares to publish: {error}") from error


class Publishes(Protocol):
    """What ``@published`` with options is: a decorator that keeps the method's types."""

    def __call__(self, function: Callable[[A], R | None], /) -> Published[A, R]:
        """Declares the method."""
        ...


@overload
def published(function: Callable[[A], R | None], /) -> Published[A, R]: ...
@overload
def published(*, version: int = 1, indexes: Sequence[Index] = ()) -> Publishes: ...
def published(
    function: Callable[[Any], Any] | None = None, /, *, version: int = 1, indexes: Sequence[Index] = ()
) -> Any:
    """Declares a method without arguments as part of the read model.

    Its value after every commit is what ``ActorSystem.view`` shows under the entity's id; ``None`` means: no entry. It
    must be a pure function of ``self.state``, ``self.version`` and ``self.entity_id``, and say what it returns.

    ``version`` (1 to 65,535) is raised with each change of what is published: of two values of one state the one of the
    higher version counts. ``indexes`` names fields of the value by which ``View.find`` finds entries without looking
    at all of them: ``by("region")``, ``by_range("price")``, ``by_window("starts_at", "ends_at")``.
    """
    if function is None:
        return partial(Published[Any, Any], version=version, indexes=tuple(indexes))
    return Published[Any, Any](function, version=version, indexes=tuple(indexes))


def _declared_type(where: str, function: Callable[..., Any], namespace: Mapping[str, Any]) -> Any:
    if not inspect.isfunction(function) or inspect.iscoroutinefunction(function):
        raise DeclarationError(f"{where} is published: it must be a plain method, which is not async")
    try:
        hints = get_type_hints(function, localns=dict(namespace), include_extras=True)
    except NameError as error:
        raise DeclarationError(
            f"an annotation of {where} cannot be resolved: {error}; the types of what is published must be importable "
            "where the actor class is defined"
        ) from error
    if "return" not in hints:
        raise DeclarationError(f"{where} does not say what it publishes: annotate it, as in -> int | None")
    declared = hints["return"]
    if get_origin(declared) in (Union, types.UnionType):
        members = tuple(member for member in get_args(declared) if member is not type(None))
        return members[0] if len(members) == 1 else Union[members]  # noqa: UP007 - made at run time
    if declared is type(None):
        raise DeclarationError(f"{where} publishes nothing but None: annotate it with the type of its values")
    return declared


def _detached(value: Any) -> Any:
    """The value, or a copy that shares nothing that can change. It is made after every commit, so it is to be cheap."""
    parts = _changeable(cast("Hashable", type(value)))
    if parts == ():
        return value
    if parts is None:
        return deepcopy(value)
    return msgspec.structs.replace(value, **{name: copied(getattr(value, name)) for name, copied in parts})


@cache
def _changeable(cls: Any) -> tuple[tuple[str, Callable[[Any], Any]], ...] | None:
    """The fields of a frozen struct whose values can change, each with what copies it entirely.

    There are none in what is a value; ``None``: the class does not tell.
    """
    if is_value(cls):
        return ()
    if isinstance(cls, type) and issubclass(cls, msgspec.Struct) and cls.__struct_config__.frozen:
        try:
            fields = msgspec.structs.fields(cls)
        except NameError:
            # Its annotations name what cannot be seen from here.
            return None
        return tuple((field.name, _copier(field.type)) for field in fields if not is_value(field.type))
    return None


def _copier(declared: Any) -> Callable[[Any], Any]:
    container = get_origin(declared)
    if container in (dict, list, set) and all(map(is_value, get_args(declared))):
        return partial(_copy_of_values, cast("type[Any]", container))
    return deepcopy


def _copy_of_values(container: type[Any], value: Any) -> Any:
    return container(value) if type(value) is container else deepcopy(value)
