"""Commands and queries: how they are declared, and how a reference offers them.

One class is contract, implementation and client type. In a class, ``@command`` and ``@query`` turn a method into a
descriptor; on the typed reference that ``ActorSystem.get`` returns, the same name is a ``Call`` with the method's
parameters, whose ``await`` gives the method's reply.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    overload,
)

from actorkit.errors import DeclarationError
from actorkit.ids import PersistenceId
from actorkit.persistence.calls import Handler, Kind

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "Call",
    "CallTarget",
    "EntityReference",
    "HandlerDeclaration",
    "check_options",
    "command",
    "query",
]

_DEADLINE_MAX_S = 24 * 3600

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")


class CallTarget(Protocol):
    """What takes calls: the region of this process."""

    def call(
        self, pid: PersistenceId, handler: Handler, args: tuple[Any, ...], *, key: str | None, deadline_s: float | None
    ) -> asyncio.Future[Any]: ...


def check_options(handler: Handler, key: str | None, deadline_s: float | None) -> None:
    """Raises ``TypeError`` or ``ValueError`` where a call cannot have this idempotency key or deadline."""
    if key is not None and handler.kind is Kind.QUERY:
        raise TypeError(f"{handler.signature.where} is a query, which changes nothing: it takes no idempotency key")
    if key is not None and not 1 <= len(key) <= 256:
        raise ValueError(f"an idempotency key has 1 to 256 characters, this one has {len(key)}")
    if deadline_s is not None and not 0 < deadline_s <= _DEADLINE_MAX_S:
        raise ValueError(
            f"a deadline is a number of seconds above 0, at most {_DEADLINE_MAX_S} (24 h), not {deadline_s}"
        )


class Call(Generic[P, R]):
    """A command or query of one entity, ready to be called: ``await pool.reserve(3)``.

    Awaiting it ends in the handler's reply or in one of the errors below ``CallError``; a plain ``TypeError`` is raised
    at once where the arguments do not fit.
    """

    __slots__ = ("_deadline_s", "_handler", "_key", "_pid", "_target")

    def __init__(
        self,
        target: CallTarget,
        pid: PersistenceId,
        handler: Handler,
        key: str | None = None,
        deadline_s: float | None = None,
    ) -> None:
        self._target = target
        self._pid = pid
        self._handler = handler
        self._key = key
        self._deadline_s = deadline_s

    def options(self, *, idempotency_key: str | None = None, deadline_s: float | None = None) -> Call[P, R]:
        """The same call with an idempotency key (1 to 256 characters, scoped to the entity), or its own deadline.

        A command with a key takes effect once, and answers the same, however often it is sent within 24 hours, by
        whomever, through restarts; with other arguments it raises ``IdempotencyKeyReused``. ``deadline_s`` is the time
        in seconds after which the call ends by itself.
        """
        check_options(self._handler, idempotency_key, deadline_s)
        return Call(
            self._target,
            self._pid,
            self._handler,
            self._key if idempotency_key is None else idempotency_key,
            self._deadline_s if deadline_s is None else deadline_s,
        )

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        handler = self._handler
        bound = handler.signature.bind(args, kwargs)
        reply: R = await self._target.call(self._pid, handler, bound, key=self._key, deadline_s=self._deadline_s)
        return reply

    def begin(self, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[R]:
        """Sends the call on its way, for whoever does not wait for it in a coroutine. The future ends as the call does.

        Calls of one sender to one entity are handled in the order in which they were begun. Cancelling the future does
        not cancel the call.
        """
        handler = self._handler
        bound = handler.signature.bind(args, kwargs)
        return self._target.call(self._pid, handler, bound, key=self._key, deadline_s=self._deadline_s)

    def __repr__(self) -> str:
        return f"<{self._handler.kind.value} {self._handler.name} of {self._pid}>"


class HandlerDeclaration(Generic[A, P, R]):
    """What ``@command`` and ``@query`` leave in the class; the class's declaration is built from it."""

    def __init__(self, kind: Kind, function: Callable[..., Any]) -> None:
        if not inspect.isfunction(function):
            raise DeclarationError(f"@{kind.value} decorates a method, plain or async, and only once: not {function!r}")
        self.kind = kind
        self.function = function
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    def __set_name__(self, owner: type, name: str) -> None:
        if name != self.function.__name__:
            raise DeclarationError(
                f"{owner.__name__}.{name} is a {self.kind.value} under another name: define it by its own"
            )

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> HandlerDeclaration[A, P, R]: ...
    @overload
    def __get__(self, instance: A, owner: type[Any]) -> Call[P, R]: ...
    def __get__(self, instance: A | None, owner: type[Any]) -> HandlerDeclaration[A, P, R] | Call[P, R]:
        if instance is None:
            return self
        raise TypeError(
            f"{owner.__name__}.{self.__name__} is a {self.kind.value}: an entity cannot call its own, since it handles "
            "one at a time. Move what they share into a plain method"
        )


@overload
def command(function: Callable[Concatenate[A, P], Coroutine[Any, Any, R]]) -> HandlerDeclaration[A, P, R]: ...
@overload
def command(function: Callable[Concatenate[A, P], R]) -> HandlerDeclaration[A, P, R]: ...
def command(function: Callable[..., Any]) -> HandlerDeclaration[Any, Any, Any]:
    """Declares a method, plain or ``async``, as a command: it looks at state and arguments, and may ``emit`` events.

    Its reply leaves once what it emitted is durable. ``raise Rejected`` refuses the command and discards what it had
    emitted; a refusal that must record something emits and returns.
    """
    return HandlerDeclaration(Kind.COMMAND, function)


@overload
def query(function: Callable[Concatenate[A, P], Coroutine[Any, Any, R]]) -> HandlerDeclaration[A, P, R]: ...
@overload
def query(function: Callable[Concatenate[A, P], R]) -> HandlerDeclaration[A, P, R]: ...
def query(function: Callable[..., Any]) -> HandlerDeclaration[Any, Any, Any]:
    """Declares a method, plain or ``async``, as a query: it reads the state, and its answer is never stale.

    Emitting in it raises. The answer leaves once everything it saw is durable.
    """
    return HandlerDeclaration(Kind.QUERY, function)


class EntityReference:
    """A reference to one entity: it has the commands and queries of its class, and nothing else."""

    __slots__ = ("__dict__", "_handlers", "_pid", "_target")

    def __init__(self, target: CallTarget, pid: PersistenceId, handlers: dict[str, Handler]) -> None:
        self._target = target
        self._pid = pid
        self._handlers = handlers

    def __getattr__(self, name: str) -> Call[..., Any]:
        handler = self._handlers.get(name)
        if handler is None:
            raise AttributeError(
                f"a reference to {self._pid.type} has only its commands and queries "
                f"({', '.join(sorted(self._handlers))}), not {name!r}"
            )
        call: Call[..., Any] = Call(self._target, self._pid, handler)
        self.__dict__[name] = call
        return call

    def __dir__(self) -> list[str]:
        return sorted(self._handlers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EntityReference) and other._pid == self._pid

    def __hash__(self) -> int:
        return hash(self._pid)

    def __repr__(self) -> str:
        return f"<reference to {self._pid}>"
