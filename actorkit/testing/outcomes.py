"""Expectations: what a test says about the outcome of one call, and what it is told where that is not so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Self, TypeVar, cast

from actorkit.errors import CallError, Rejected
from actorkit.persistence.calls import Kind
from actorkit.persistence.events import Event
from actorkit.persistence.published import Published
from actorkit.persistence.state import State
from actorkit.testing.rehearsal import Rehearsed, Setting
from actorkit.testing.rendering import differences, indented, mismatch, numbered, shown
from actorkit.testing.requests import TimerNoted

__all__ = ["Expectations"]

S = TypeVar("S", bound=State)
E = TypeVar("E", bound=Event)
R = TypeVar("R")
V = TypeVar("V")


class Expectations(Generic[S, E, R]):
    """The assertions of an outcome. ``_before`` is what the call found, ``_did`` what it did."""

    _before: Setting
    _did: Rehearsed
    _foreseen: bool
    """A refusal or failure was expected by the test."""

    # --------------------------------------------------------------------------------------------- what can be had

    @property
    def events(self) -> tuple[E, ...]:
        """What it emitted, as the journal has it."""
        __tracebackhide__ = True
        self._must_have_succeeded()
        return cast("tuple[E, ...]", self._did.emitted)

    @property
    def reply(self) -> R:
        """What its caller gets."""
        __tracebackhide__ = True
        self._must_have_succeeded()
        reply: R = self._did.reply
        return reply

    @property
    def rejection(self) -> Rejected:
        """The refusal, as its caller gets it."""
        __tracebackhide__ = True
        return self._must_have_been_rejected()

    @property
    def state_after(self) -> S:
        """The state that all events give."""
        state: S = self._did.state
        return state

    # ------------------------------------------------------------------------------------------------ expectations

    def emits(self, *expected: E | type[E]) -> Self:
        """It emitted exactly these events, in this order: each given as a value, or as a class if any of it will do."""
        __tracebackhide__ = True
        self._must_have_succeeded()
        declared = self._before.entity_type.events
        for wanted in expected:
            cls = wanted if isinstance(wanted, type) else type(wanted)
            if cls not in declared:
                known = ", ".join(sorted(event.__name__ for event in declared))
                raise self._unlike(f"it never emits {cls.__name__}, only {known}: correct the test or the declaration")
        actual = self._did.emitted
        if len(expected) != len(actual) or not all(map(_matches, expected, actual)):
            raise self._unlike(mismatch(expected, actual))
        return self

    def emits_nothing(self) -> Self:
        """It changed nothing."""
        __tracebackhide__ = True
        return self.emits()

    def replies(self, expected: R | Callable[[R], object]) -> Self:
        """Its reply is this value, or one for which this function is true."""
        __tracebackhide__ = True
        self._must_have_succeeded()
        reply: R = self._did.reply
        if callable(expected):
            if not expected(reply):
                raise self._unlike(f"the reply is not as expected:\n{indented(shown(reply))}")
        elif expected != reply:
            raise self._unlike(differences("expected reply", expected, "actual reply", reply))
        return self

    def rejects(self, expected: type[Rejected] | str, /, **details: Any) -> Self:
        """It was refused: by this class, by this code, or for a reason that contains this text; with these details,
        among others. A refused call changes nothing."""
        __tracebackhide__ = True
        refusal = self._must_have_been_rejected()
        if isinstance(expected, str):
            as_expected = expected == refusal.code or expected in refusal.reason
            wanted = repr(expected)
        else:
            as_expected = isinstance(refusal, expected)
            wanted = f"{expected.__name__} (code {expected.code!r})"
        if not as_expected:
            raise self._unlike(f"expected a refusal with {wanted}, and it was refused otherwise:\n{_refusal(refusal)}")
        given = {name: refusal.details.get(name, "(absent)") for name in details}
        if given != details:
            raise self._unlike(
                f"the refusal's details differ:\n{indented(differences('expected', details, 'actual', given))}"
            )
        self._foreseen = True
        return self

    def fails(self, expected: type[Exception], text: str = "") -> Self:
        """Its handler raised this exception, which is no refusal, and which contains the text. Its caller gets
        ``HandlerFailed``, and nothing is changed."""
        __tracebackhide__ = True
        error = self._did.error
        if error is None:
            raise self._unlike(f"expected it to fail with {expected.__name__}, and it did not:\n{self._ending()}")
        if not isinstance(error, expected) or text not in str(error):
            about = f" about {text!r}" if text else ""
            raise self._unlike(f"expected {expected.__name__}{about}, and it failed with {error!r}") from error
        self._foreseen = True
        return self

    def state(self, check: Callable[[S], object]) -> Self:
        """The function is true of the state that all events give."""
        __tracebackhide__ = True
        if not check(self._did.state):
            raise self._unlike(f"the state is not as expected:\n{indented(self._state())}")
        return self

    def state_equals(self, expected: S) -> Self:
        """This is the state that all events give."""
        __tracebackhide__ = True
        if expected != self._did.state:
            raise self._unlike(
                f"the state differs in:\n{indented(differences('expected', expected, 'actual', self._did.state))}"
            )
        return self

    def publishes(self, published: Published[Any, V], expected: V | Callable[[V | None], object] | None) -> Self:
        """What the read model shows of the entity afterwards, as in ``.publishes(Pool.availability, 7)``; ``None``: no
        entry."""
        __tracebackhide__ = True
        self._must_have_succeeded()
        value = published.value(self._did.actor)
        if callable(expected):
            if not expected(value):
                raise self._unlike(f"{published.name} is not as expected:\n{indented(shown(value))}")
        elif expected != value:
            raise self._unlike(f"{published.name}:\n{indented(differences('expected', expected, 'actual', value))}")
        return self

    def starts_timer(self, name: str, after_s: float) -> Self:
        """It started the timer of that name. ``and_when_timer`` lets it fire."""
        __tracebackhide__ = True
        self._must_have_succeeded()
        if not any(timer.name == name and timer.delay_s == after_s for timer in self._did.started):
            raise self._unlike(
                f"expected a timer {name!r} after {after_s:g} s, and it started:\n{_timers(self._did.started)}"
            )
        return self

    def cancels_timer(self, name: str) -> Self:
        """It cancelled the timer of that name."""
        __tracebackhide__ = True
        self._must_have_succeeded()
        if name not in self._did.cancelled:
            cancelled = ", ".join(map(repr, self._did.cancelled)) or "none"
            raise self._unlike(f"expected the timer {name!r} to be cancelled, and it cancelled: {cancelled}")
        return self

    # ------------------------------------------------------------------------------------------------------ messages

    def _must_have_succeeded(self) -> None:
        __tracebackhide__ = True
        did = self._did
        if did.rejected is not None:
            raise self._unlike(f"it was refused:\n{_refusal(did.rejected)}") from did.rejected
        if did.error is not None:
            raise self._unlike(
                f"it failed: {did.error!r}; its caller would get HandlerFailed{_hint(did)}"
            ) from did.error

    def _must_have_been_rejected(self) -> Rejected:
        __tracebackhide__ = True
        did = self._did
        if did.error is not None:
            raise self._unlike(f"expected a refusal, and it failed: {did.error!r}{_hint(did)}") from did.error
        if did.rejected is None:
            raise self._unlike(f"expected a refusal, and it was not refused:\n{self._ending()}")
        return did.rejected

    def _must_be_foreseen(self) -> None:
        __tracebackhide__ = True
        if not self._foreseen:
            self._must_have_succeeded()

    def _unlike(self, what: str) -> AssertionError:
        """What the call did, as the message of a failed test."""
        before = len(self._before.history)
        history = f"after {before} event{'s' if before != 1 else ''}" if before else "new"
        lines = [f"{self._before.pid} ({history}), {self._did.request}:", indented(what)]
        if self._did.error is None and "the state" not in what:
            lines += ["  the state afterwards:" if self._did.emitted else "  the state:", indented(self._state())]
        return AssertionError("\n".join(lines))

    def _state(self) -> str:
        state = self._did.state
        names: Sequence[str] = state.__struct_fields__
        return "\n".join(f"{name} = {shown(getattr(state, name))}" for name in names) or shown(state)

    def _ending(self) -> str:
        did = self._did
        if did.rejected is not None:
            return _refusal(did.rejected)
        if did.error is not None:
            return indented(f"failed: {did.error!r}")
        emitted = f"emitted:\n{indented(numbered(did.emitted))}\n" if did.request.handler.kind is Kind.COMMAND else ""
        return indented(f"{emitted}replied: {shown(did.reply)}")


def _matches(expected: object, actual: object) -> bool:
    return isinstance(actual, expected) if isinstance(expected, type) else expected == actual


def _refusal(refusal: Rejected) -> str:
    details = f", details {dict(refusal.details)!r}" if refusal.details else ""
    return indented(f"{type(refusal).__name__} (code {refusal.code!r}): {refusal.reason!r}{details}")


def _timers(started: Sequence[TimerNoted]) -> str:
    return indented("\n".join(map(str, started)) or "none")


def _hint(did: Rehearsed) -> str:
    if isinstance(did.error, CallError):
        return ". (An error of a call to another entity that the handler lets through is a failure of its own.)"
    return ""
