"""Codec: messages as bytes, and nothing but the declared types back.

A message type is a ``msgspec.Struct`` with ``array_like=True`` and a short, stable ``tag``::

    class Ping(msgspec.Struct, frozen=True, array_like=True, tag="ping"):
        number: int
        note: str = ""

On the wire it is the MessagePack array ``["ping", number, note]``. The tag alone says which declared type is meant:
nothing is looked up by a class's name, and nothing from the wire is executed. Two versions of a program understand each
other as long as fields are only added at the end, with defaults: what the older one does not know it skips.

Before anything is built, the bytes are walked once in C without building anything: every array, map and string must
really be there as long as it says, so that a header of five bytes cannot ask for gigabytes. Types that would admit
anything (``Any``, ``Raw``, recursive ones) cannot be declared, so what is built is never deeper than declared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Union, cast

import msgpack  # type: ignore[import-untyped]
import msgspec
from msgspec import inspect

from actorkit.errors import DeclarationError, FrameError, MessageTooLarge, UndecodableMessage, UnknownMessage, WireError
from actorkit.wire.settings import WireSettings

__all__ = ["TAG_MAX_CHARS", "Codec"]

TAG_MAX_CHARS: Final = 32
"""The longest tag: it travels with every message."""

_UNDECODABLE = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError, MemoryError)
_LEAVES = (
    *(inspect.NoneType, inspect.BoolType, inspect.IntType, inspect.FloatType, inspect.StrType, inspect.BytesType),
    *(inspect.DateTimeType, inspect.TimeType, inspect.DateType, inspect.TimeDeltaType, inspect.UUIDType),
    *(inspect.DecimalType, inspect.EnumType, inspect.LiteralType, inspect.ByteArrayType),
)
_Unpacker = cast("Any", msgpack).Unpacker
_SMALL_BYTES: Final = 4096
_COLLECTIONS = (inspect.ListType, inspect.SetType, inspect.FrozenSetType, inspect.VarTupleType)


class _Tagged(msgspec.Struct, array_like=True, frozen=True):
    tag: str


class Codec:
    """The declared message types, and how they are written and read."""

    def __init__(self, settings: WireSettings = WireSettings()) -> None:  # noqa: B008 - frozen
        self.settings = settings
        self._tags: dict[type[msgspec.Struct], str] = {}
        self._types: dict[str, type[msgspec.Struct]] = {}
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode_batch: Callable[[bytes | memoryview], list[msgspec.Struct]] = self._nothing_declared
        self._decode_one: Callable[[bytes | msgspec.Raw], msgspec.Struct] = self._nothing_declared
        self._prepared = False
        self._decode_raws = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
        self._decode_tag = msgspec.msgpack.Decoder(_Tagged).decode
        self._walk = _Walk()

    @property
    def declared(self) -> Mapping[str, type[msgspec.Struct]]:
        """The types by their tags."""
        return self._types

    def declare(self, message_type: type[msgspec.Struct]) -> None:
        """From now on messages of this type may come and go. Declaring one again changes nothing.

        Raises ``DeclarationError`` for a type that is no message type, whose tag is taken, or that would admit
        anything.
        """
        if message_type in self._tags:
            return
        tag = _tag_of(message_type)
        known = self._types.get(tag)
        if known is not None:
            raise DeclarationError(f"the tag {tag!r} of {message_type.__qualname__} is taken by {known.__qualname__}")
        _check(inspect.type_info(message_type), message_type.__qualname__, (), self.settings.depth_max)
        self._tags[message_type] = tag
        self._types[tag] = message_type
        self._prepared = False

    def encode(self, message: msgspec.Struct) -> bytes:
        """Raises ``UnknownMessage``, ``MessageTooLarge``, or ``UndecodableMessage`` for what MessagePack cannot hold.

        Fields are not validated here but where they are read.
        """
        tag = self._tags.get(type(message))
        if tag is None:
            raise UnknownMessage(type(message).__qualname__)
        try:
            data = self._encode(message)
        except _UNDECODABLE as error:
            raise UndecodableMessage(tag, str(error)) from error
        if len(data) > self.settings.message_max_bytes:
            raise MessageTooLarge(tag, len(data), self.settings.message_max_bytes)
        return data

    def decode(self, data: bytes) -> msgspec.Struct:
        """One message. Raises ``FrameError`` where the bytes are no MessagePack, else as ``decode_batch`` lists."""
        self._walk.over(data)
        if not self._prepared:
            self._prepare()
        return self._decoded(data)

    def decode_batch(self, body: bytes | memoryview) -> tuple[list[msgspec.Struct], Sequence[WireError]]:
        """The messages of a MessagePack array, in order; and why any others are missing from them.

        Raises ``FrameError`` where the whole is no such array.
        """
        self._walk.over(body)
        if not self._prepared:
            self._prepare()
        try:
            return self._decode_batch(body), ()
        except _UNDECODABLE:
            return self._decode_each(body)

    def _decode_each(self, body: bytes | memoryview) -> tuple[list[msgspec.Struct], Sequence[WireError]]:
        try:
            raws = self._decode_raws(body)
        except _UNDECODABLE as error:
            raise FrameError(f"a batch is an array of messages, this is none: {error}") from error
        messages: list[msgspec.Struct] = []
        errors: list[WireError] = []
        for raw in raws:
            try:
                messages.append(self._decoded(raw))
            except WireError as error:
                errors.append(error)
        return messages, errors

    def _decoded(self, data: bytes | msgspec.Raw) -> msgspec.Struct:
        if len(memoryview(data)) > self.settings.message_max_bytes:
            raise MessageTooLarge("", len(memoryview(data)), self.settings.message_max_bytes)
        tag = ""
        try:
            tag = self._decode_tag(data).tag[:TAG_MAX_CHARS]
            if tag not in self._types:
                raise UnknownMessage(tag)
            message = self._decode_one(data)
        except _UNDECODABLE as error:
            raise UndecodableMessage(tag, str(error)) from error
        return message

    def _nothing_declared(self, data: object) -> Any:
        raise TypeError("no message type is declared here")

    def _prepare(self) -> None:
        self._prepared = True
        if not self._types:
            return
        union: Any = Union[tuple(self._types.values())]  # noqa: UP007 - of types known only now
        self._decode_batch = msgspec.msgpack.Decoder(list[union]).decode
        self._decode_one = msgspec.msgpack.Decoder(union).decode


class _Walk:
    """Goes over MessagePack without building anything of it."""

    def __init__(self) -> None:
        self._walker: Any = None
        """For what is small: making one costs more than using it. ``None`` while what it was given was no MessagePack,
        of which it would keep a part."""

    def over(self, data: bytes | memoryview) -> None:
        """Raises ``FrameError`` unless the bytes are exactly one complete MessagePack value."""
        size = len(data)
        small = size <= _SMALL_BYTES
        walker, self._walker = (self._walker, None) if small else (None, self._walker)
        if walker is None:
            limit = max(size, _SMALL_BYTES)
            walker = _Unpacker(read_size=limit, max_buffer_size=limit)
        begin: int = walker.tell()
        try:
            walker.feed(data)
            walker.skip()
            length: int = walker.tell() - begin
        except (msgpack.UnpackException, ValueError) as error:
            raise FrameError(f"{size} bytes are no MessagePack: {type(error).__name__} {error}".rstrip()) from error
        if length != size:
            raise FrameError(f"after a MessagePack value of {length} bytes {size - length} more follow")
        if small:
            self._walker = walker


def _tag_of(message_type: type[msgspec.Struct]) -> str:
    name = getattr(message_type, "__qualname__", repr(message_type))
    if not isinstance(message_type, type) or not issubclass(message_type, msgspec.Struct):
        raise DeclarationError(f"{name} is no message type: make it a msgspec.Struct")
    config = message_type.__struct_config__
    if not config.array_like or not isinstance(config.tag, str) or not 1 <= len(config.tag) <= TAG_MAX_CHARS:
        raise DeclarationError(
            f"{name} is no message type: declare it with array_like=True and a tag of 1 to {TAG_MAX_CHARS} characters"
        )
    return config.tag


def _check(info: inspect.Type, where: str, above: tuple[type, ...], depth_left: int) -> None:
    if depth_left == 0:
        raise DeclarationError(f"{where} nests too deeply: carry that part as bytes of its own")
    left = depth_left - 1
    if isinstance(info, inspect.Metadata):
        _check(info.type, where, above, depth_left)
    elif isinstance(info, inspect.StructType):
        if info.cls in above:
            raise DeclarationError(f"{where} contains itself, so that it could nest without end: use a list of parts")
        for field in info.fields:
            _check(field.type, f"{where}.{field.name}", (*above, info.cls), left)
    elif isinstance(info, _COLLECTIONS):
        _check(info.item_type, where, above, left)
    elif isinstance(info, inspect.TupleType):
        for item in info.item_types:
            _check(item, where, above, left)
    elif isinstance(info, inspect.DictType):
        _check(info.key_type, where, above, left)
        _check(info.value_type, where, above, left)
    elif isinstance(info, inspect.UnionType):
        for part in info.types:
            _check(part, where, above, depth_left)
    elif isinstance(info, inspect.NamedTupleType | inspect.DataclassType | inspect.TypedDictType):
        for field in info.fields:
            _check(field.type, f"{where}.{field.name}", (*above, info.cls), left)
    elif not isinstance(info, _LEAVES):
        raise DeclarationError(
            f"{where} admits anything ({type(info).__name__}): name its type, or carry bytes that are decoded where "
            "their type is known"
        )
