"""Negative prompts that help: each measured against none, on the same noise at the same guidance scale.

Of several that change nothing, one looks good by chance. So the interval of each gain is that of 1 - 0.05 / k, where k
were tried (Bonferroni's correction): with 95% confidence none of them is offered that does not help.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from fewstep.benchmark.scale import figure_json, shown
from fewstep.measure.figure import Bootstrap, Difference, Figure

REPLICATES = 4000
"""Samples of the bootstrap: the ends of an interval at 99% are rare ones."""


@cache
def usual_negatives(kind: str) -> tuple[str, ...]:
    """Those that are tried where none are given: of "words", or of "scenes", whose model knows few words."""
    document = json.loads(files("fewstep.benchmark").joinpath("negatives.json").read_text(encoding="utf-8"))
    return tuple(document[kind])


def bootstrap_of(tried: int) -> Bootstrap:
    """The bootstrap of a gain where so many were tried."""
    return Bootstrap(REPLICATES, 1 - 0.05 / max(1, tried))


@dataclass(frozen=True)
class Negative:
    """A negative prompt that was tried.

    Attributes:
        gain: by how much the figure is better than without, with its interval; None where images were lost.
        images: that it rests on; fewer where it was so far behind that no more were drawn.
    """

    text: str
    images: int
    figure: Figure | None
    gain: Difference | None

    @property
    def helps(self) -> bool:
        """Whether the figure is surely better than without it."""
        return self.gain is not None and self.gain.low > 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        gain = None if self.gain is None else self.gain._asdict()
        figure = figure_json(self.figure)
        return {"text": self.text, "images": self.images, "figure": figure, "gain": gain, "helps": self.helps}


@dataclass(frozen=True)
class Negatives:
    """All that were tried; `why` none was, or `cut`, what was not measured for want of time, else "".

    Attributes:
        name: of the figure.
        confidence: of the intervals of the gains.
    """

    name: str
    tried: Sequence[Negative] = ()
    confidence: float = 0.95
    why: str = ""
    cut: str = ""

    @property
    def text(self) -> str | None:
        """The one to take: of those that help the one with the most gain; None where none helps."""
        helping = [(one.gain.value, one.text) for one in self.tried if one.gain is not None and one.helps]
        return max(helping)[1] if helping else None

    @property
    def words(self) -> list[str]:
        """What to tell people, a sentence each."""
        if self.why:
            return [self.why]
        chosen = next((one for one in self.tried if one.text == self.text), None)
        said = [f"Not all negative prompts were measured: {self.cut}"] if self.cut else []
        count, percent = len(self.tried), f"{100 * self.confidence:.4g}%"
        several = f", at {percent} as {count} were tried" if count > 1 else f", at {percent}"
        if chosen is None or chosen.gain is None:
            if self.tried:
                reach = "none of the intervals of their gains" if count > 1 else "the interval of its gain does not"
                ends = f"{reach} {'lies' if count > 1 else 'lie'} above 0{several}"
                said.append(f"No negative prompt helps: {ends}")
            return said
        gain = (shown(self.name, value) for value in chosen.gain[:3])
        value, low, high = gain
        return [
            *said,
            f'The negative prompt "{chosen.text}" helps: {self.name} is better by {value} ({low} to {high}{several}), '
            f"on the same {chosen.images} images",
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "text": self.text,
            "confidence": self.confidence,
            "not_measured": self.cut or self.why,
            "tried": [one.to_json() for one in self.tried],
            "words": self.words,
        }
