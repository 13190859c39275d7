"""The trace of a run: a hash over everything that happened, and the last lines of it in words.

Two runs of one seed have the same hash, or the program under test depends on something that the seed does not decide.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from hashlib import blake2b

__all__ = ["Trace"]


class Trace:
    """Collects what the parts of a world note, each line with its virtual time."""

    def __init__(self, now_s: Callable[[], float], *, kept: int = 200) -> None:
        """``kept`` lines stay readable; 0 for none, which is quicker."""
        self._now_s = now_s
        self._hash = blake2b(digest_size=16)
        self._lines: deque[tuple[float, str]] = deque(maxlen=kept)
        self.watch: Callable[[float, str], None] | None = None
        """Called with each line, as for printing a whole run."""

    def note(self, line: str) -> None:
        """One thing that has happened."""
        now_s = self._now_s()
        self._hash.update(line.encode())
        self._lines.append((now_s, line))
        if self.watch is not None:
            self.watch(now_s, line)

    def aside(self, line: str) -> None:
        """Something worth reading whose words are not the same in every run, such as a traceback."""
        self._lines.append((self._now_s(), line))
        if self.watch is not None:
            self.watch(self._now_s(), line)

    def crumbs(self, crumbs: bytearray) -> None:
        """What the loop has run."""
        self._hash.update(crumbs)
        crumbs.clear()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    @property
    def lines(self) -> list[str]:
        """The last ones, oldest first."""
        return [f"{at_s:12.6f}  {line}" for at_s, line in self._lines]
