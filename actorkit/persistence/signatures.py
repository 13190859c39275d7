"""The signature of a handler as data: what its arguments and its reply are, and how they travel.

Arguments become a MessagePack array in the order of the parameters, with defaults filled in, so that equal calls have
equal bytes (and so equal digests). Decoding validates them against the annotations.
"""

from __future__ import annotations

import enum
import inspect
import re
import types
from collections.abc import Callable, Coroutine, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cache, partial
from hashlib import blake2b
from itertools import product
from math import prod
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec

from actorkit.errors import DeclarationError
from actorkit.persistence.encodable import UNDECODABLE, unencodable

__all__ = ["Signature", "is_value"]

_IMMUTABLE = frozenset({str, int, float, bool, bytes, type(None), datetime, date, time, timedelta, Decimal, UUID})
_COMBINATIONS_MAX = 64
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_ELEMENT = re.compile(r"at `\$\[(\d+)\](.*?)`")
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Signature:
    """Parameters and reply of one handler. Raises ``DeclarationError`` where they are not declared or not encodable."""

    def __init__(self, owner: str, function: Callable[..., Any], namespace: Mapping[str, Any]) -> None:
        self.name = function.__name__
        self.where = f"{owner}.{self.name}"
        hints = self._hints(function, namespace)
        if "return" not in hints:
            raise DeclarationError(f"{self.where} does not say what it returns: annotate it (-> None for nothing)")
        parameters = list(inspect.signature(function).parameters.values())[1:]
        fields: list[Any] = []
        self.required = 0
        for parameter in parameters:
            if parameter.kind not in _POSITIONAL and parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                raise DeclarationError(
                    f"{self.where} takes *{parameter.name}: name its parameters, since they are stored"
                )
            if parameter.name not in hints:
                raise DeclarationError(f"the parameter {parameter.name!r} of {self.where} has no type: annotate it")
            if parameter.default is inspect.Parameter.empty:
                self.required += 1
                fields.append((parameter.name, hints[parameter.name]))
            else:
                default = msgspec.field(default_factory=partial(_same, parameter.default))
                fields.append((parameter.name, hints[parameter.name], default))
        self._names = [parameter.name for parameter in parameters]
        self.positional = sum(parameter.kind in _POSITIONAL for parameter in parameters)
        self.keyword_only = tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
        self.returns = _reply_type(hints["return"])
        try:
            self._struct = msgspec.defstruct(
                f"{self.name}_arguments", fields, array_like=True, forbid_unknown_fields=True
            )
            self._decoder = msgspec.msgpack.Decoder(self._struct)
            self.decode_reply: Callable[[bytes], Any] = msgspec.msgpack.Decoder(self.returns).decode
            """Raises ``msgspec.MsgspecError`` where the bytes do not fit the declared reply."""
            strange = unencodable(self._struct) or unencodable(self.returns)
        except (TypeError, NameError) as error:
            raise DeclarationError(f"{self.where} cannot travel in a message: {error}") from error
        if strange is not None:
            raise DeclarationError(f"{self.where} cannot travel in a message: {strange} has no form in MessagePack")
        self._encoder = msgspec.msgpack.Encoder()
        self.encode_reply: Callable[[object], bytes] = self._encoder.encode
        """Raises ``TypeError`` where the reply cannot be encoded."""
        self.arguments_are_values = not self.keyword_only and all(is_value(hints[p.name]) for p in parameters)
        self.reply_is_value = is_value(self.returns)
        declared = [hints[parameter.name] for parameter in parameters] if self.arguments_are_values else [Any]
        self._exact = _exact_classes(declared)
        """The classes of arguments, all together, that need no closer look and no copy."""

    def _hints(self, function: Callable[..., Any], namespace: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return get_type_hints(function, localns=dict(namespace), include_extras=True)
        except NameError as error:
            raise DeclarationError(
                f"an annotation of {self.where} cannot be resolved: {error}; types of handlers must be importable "
                "where the actor class is defined"
            ) from error

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arguments in the parameters' order, defaults filled in, sharing nothing mutable with the caller.

        Raises ``TypeError`` where the call does not fit the signature, as a plain call would, or where a value is not
        of its parameter's declared type: that is told to the caller, before anybody else builds on it.
        """
        if not kwargs and tuple(map(type, args)) in self._exact and _surely_storable(args):
            return args
        if len(args) > self.positional:
            raise TypeError(f"{self.where} takes at most {self.positional} positional arguments, not {len(args)}")
        try:
            bound = self._struct(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.where}: {error}") from None
        values = msgspec.structs.astuple(bound)
        if tuple(map(type, values)) in self._exact and _surely_storable(values):
            return values
        try:
            return msgspec.structs.astuple(self._decoder.decode(self._encoder.encode(bound)))
        except (*UNDECODABLE, TypeError, ValueError, OverflowError) as error:
            raise TypeError(f"{self.where}: {self._about_arguments(str(error))}") from error

    def _about_arguments(self, text: str) -> str:
        """What a decoder says about the n-th element of an array, said about the parameter that stands there."""
        return _ELEMENT.sub(lambda found: f"in the argument `{self._names[int(found[1])]}{found[2]}`", text)

    def encode(self, bound: tuple[Any, ...]) -> bytes:
        return self._encoder.encode(bound)

    def decode(self, arguments: bytes) -> tuple[Any, ...]:
        """Raises ``TypeError`` where the bytes do not fit the signature."""
        try:
            return msgspec.structs.astuple(self._decoder.decode(arguments))
        except UNDECODABLE as error:
            raise TypeError(f"{self.where}: {self._about_arguments(str(error))}") from error

    def digest(self, bound: tuple[Any, ...]) -> bytes:
        """Tells calls with other arguments (or of another handler) apart."""
        return blake2b(self.name.encode() + b"\0" + self.encode(bound), digest_size=16).digest()

    def taking_bound(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The handler's function, callable with an instance and arguments as ``bind`` gives them."""
        if not self.keyword_only:
            return function

        def invoke(instance: Any, *bound: Any) -> Any:
            keywords = dict(zip(self.keyword_only, bound[self.positional :], strict=True))
            return function(instance, *bound[: self.positional], **keywords)

        return invoke


def _same(default: object) -> object:
    return default


def _reply_type(annotation: Any) -> Any:
    """The awaited type where the handler is declared as returning a coroutine."""
    if get_origin(annotation) is Coroutine:
        return get_args(annotation)[2]
    return annotation


def _surely_storable(values: tuple[Any, ...]) -> bool:
    """Whether numbers fit in 64 bits and text is UTF-8; where that is not plain, encoding will tell."""
    for value in values:
        if isinstance(value, int):
            if not _INT_MIN <= value <= _INT_MAX:
                return False
        elif isinstance(value, str) and not value.isascii():
            return False
    return True


def is_value(declared: Any) -> bool:
    """Whether values of this type are immutable throughout, so that both sides may hold the same object."""
    try:
        return _is_value(declared)
    except (TypeError, NameError):
        # An annotation that cannot be hashed, or not be resolved from here: nothing is known of it.
        return False


@cache
def _is_value(declared: Any) -> bool:
    return _is_value_within(declared, set())


def _is_value_within(declared: Any, asked: set[Any]) -> bool:
    """``asked``: the classes that are being looked at, since one may contain itself."""
    origin, arguments = get_origin(declared), get_args(declared)
    if origin is Annotated:
        return _is_value_within(arguments[0], asked)
    if declared in _IMMUTABLE or declared in asked:
        return True
    if origin in (Union, types.UnionType, tuple, frozenset):
        return all(argument is Ellipsis or _is_value_within(argument, asked) for argument in arguments)
    if not isinstance(declared, type):
        return False
    if issubclass(declared, enum.Enum):
        return True
    if issubclass(declared, msgspec.Struct) and declared.__struct_config__.frozen:
        asked.add(declared)
        return all(_is_value_within(field.type, asked) for field in msgspec.structs.fields(declared))
    return False


def _exact_classes(declared: list[Any]) -> frozenset[tuple[type[Any], ...]]:
    """The combinations of classes whose direct instances surely fit; where there would be many of them, none."""
    classes = [_exact_classes_of(each) for each in declared]
    if prod(map(len, classes)) > _COMBINATIONS_MAX:
        return frozenset()
    return frozenset(product(*classes))


def _exact_classes_of(declared: Any) -> frozenset[type[Any]]:
    if declared is None:
        return frozenset((type(None),))
    if get_origin(declared) in (Union, types.UnionType):
        return frozenset[type[Any]]().union(*map(_exact_classes_of, get_args(declared)))
    if isinstance(declared, type) and (declared in _IMMUTABLE or issubclass(declared, enum.Enum)):
        return frozenset((cast("type[Any]", declared),))
    return frozenset()
