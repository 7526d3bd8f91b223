"""How much faster one drawing is than another, measured in turns, A B A B, so that what else runs hits both.

The ratio of two neighbours is one sample; the median of these is the figure, with a bootstrap over the turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from fewstep.measure.figure import BOOTSTRAP, Figure, figure_of
from fewstep.measure.latency import synchronize

FEWEST, MOST = 5, 15
"""Turns that a ratio has at least, and at most."""
FAR, HOPELESS, SURE = 0.5, 0.9, 1.02
"""After two turns what is slower than the first is timed no more; after the fewest what is slower than the second, or
surely faster than the third."""


@dataclass(frozen=True)
class Times:
    """Seconds of some drawings, one of each in every turn."""

    base: tuple[float, ...]
    own: tuple[float, ...]

    @property
    def ratio(self) -> Figure:
        """How many times faster the own drawing is, 1 is as fast."""
        each = torch.tensor(self.base, dtype=torch.float64) / torch.tensor(self.own, dtype=torch.float64)
        drawn = (BOOTSTRAP.weights(len(each)) * len(each)).round().long()
        medians = torch.stack([each.repeat_interleave(row).quantile(0.5) for row in drawn])
        return figure_of(
            "times faster", float(each.quantile(0.5)), medians, n=len(each), better="more", **BOOTSTRAP.facts
        )

    def asks_for_more(self, turn: int) -> bool:
        """Whether another turn could tell which of the two is faster."""
        if turn <= FEWEST:
            return turn <= 2 or self.ratio.value > FAR
        ratio = self.ratio
        return ratio.value > HOPELESS and ratio.low <= SURE

    @property
    def seconds(self) -> float:
        """The middle one of the own drawings."""
        return sorted(self.own)[len(self.own) // 2]


def race(
    base: Callable[[int], object],
    others: Sequence[Callable[[int], object]],
    device: torch.device,
    end: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
) -> list[Times]:
    """Time `base` and `others`, one after the other in every turn, each called with the number of the turn.

    Every one is called once before the clock runs. After two turns those that are far slower are timed no more, after
    `FEWEST` those that are surely faster or hopelessly slow; turns stop at `MOST`, and by `time.monotonic` at `end`.
    """

    def timed(draw: Callable[[int], object], turn: int) -> float:
        synchronize(device)
        began = clock()
        draw(turn)
        synchronize(device)
        return clock() - began

    for draw in (base, *others):
        timed(draw, 0)
    found = [Times((), ()) for _ in others]
    for turn in range(1, MOST + 1):
        more = turn <= FEWEST or time.monotonic() < end
        open_ = [i for i, one in enumerate(found) if more and one.asks_for_more(turn)]
        if not open_:
            break
        seconds = timed(base, turn)
        for i in open_:
            found[i] = Times((*found[i].base, seconds), (*found[i].own, timed(others[i], turn)))
    return found
