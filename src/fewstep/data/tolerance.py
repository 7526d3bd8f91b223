"""Samples that cannot be read: each is named, its place is taken by the next one that can, and too many stop the run.

Which one takes its place depends on the number alone, so a run that goes on meets the same samples.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from typing import Any

from fewstep.core.errors import InvalidInput
from fewstep.data.source import Sample, Source, Told, Unreadable, some

MOST, SHARE = 10, 0.01
"""So many samples, or this share of all where that is more, may be unreadable."""


class Skipped(UserWarning):
    """A sample that cannot be read was left out."""


class Tolerant:
    """A source whose unreadable samples are replaced.

    Attributes:
        lost: why each could not be read, by number; grows as they are met.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.lost: dict[int, str] = {}
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """Of the source, those that cannot be read too."""
        return self.source.count

    @property
    def told(self) -> Told:
        """As the source."""
        return self.source.told

    @property
    def classes(self) -> int:
        """As the source."""
        return self.source.classes

    @property
    def identity(self) -> Mapping[str, Any]:
        """As the source."""
        return self.source.identity

    @property
    def most(self) -> int:
        """How many may be unreadable."""
        return max(MOST, int(SHARE * self.count))

    def name(self, number: int) -> str:
        """As the source; of what was asked for, not of what took its place."""
        return self.source.name(number)

    def read(self, number: int) -> Sample:
        """A sample, or the next one that can be read. Raises `InvalidInput` where too many cannot."""
        for step in range(self.count):
            place = (number + step) % self.count
            if place in self.lost:
                continue
            try:
                return self.source.read(place)
            except Unreadable as error:
                self._lose(place, str(error))
        raise InvalidInput(f"none of {self.count} samples can be read: {next(iter(self.lost.values()))}")

    def _lose(self, number: int, why: str) -> None:
        with self._lock:
            new = number not in self.lost
            self.lost[number] = why
        if not new:
            return
        if len(self.lost) > self.most:
            raise InvalidInput(
                f"{len(self.lost)} of {self.count} samples cannot be read "
                f"({some([self.source.name(one) for one in self.lost])}), more than {self.most}; the last one: {why}. "
                "Repair or remove them"
            )
        warnings.warn(f"left out, the next one takes its place: {why}", Skipped, stacklevel=4)
