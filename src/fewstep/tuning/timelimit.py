"""The time limit of a tuning: how long it takes, by stage, of what it may take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class TimeLimit:
    """Runs from when it is made.

    Attributes:
        allowed: seconds that all may take.
        spent: seconds by stage.
    """

    def __init__(self, allowed: float, clock: Callable[[], float]):
        self.allowed, self.clock = allowed, clock
        self.began = clock()
        self.spent: dict[str, float | None] = {}

    @property
    def elapsed(self) -> float:
        """Seconds since it was made."""
        return self.clock() - self.began

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Put what this takes into `spent`, however it ends."""
        before = self.clock()
        try:
            yield
        finally:
            self.spent[name] = self.clock() - before

    def after(self, share: float) -> bool:
        """Whether this share of what is allowed is over."""
        return self.elapsed > share * self.allowed

    def until(self, share: float) -> Callable[[float], bool]:
        """Whether a part of the time from now to this share of what is allowed is over."""
        now, end = self.elapsed, share * self.allowed
        return lambda part: self.elapsed > now + part * max(end - now, 0.0)
