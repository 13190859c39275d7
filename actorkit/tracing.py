"""What travels with a message: who caused it, and on whose behalf.

Context variables do not cross mailboxes, so all of this is carried by the message itself, from the first one on.
"""

from __future__ import annotations

import msgspec

__all__ = ["Trace"]


class Trace(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The place of a message in the story it belongs to."""

    correlation: str = ""
    """The id of the story: the same for everything that one request caused. Empty: the command's own id."""
    causation: str = ""
    """The id of the command that directly caused this one."""
    trace_parent: str = ""
    """A W3C Trace Context ``traceparent``, where one came in."""
