"""What distances are measured to: pictures of the teacher, or real ones, as the features see them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from fewstep.measure.features import Features
from fewstep.measure.figure import BOOTSTRAP, Bootstrap, Figure, compare
from fewstep.measure.frechet import frechet_distance
from fewstep.measure.kernel import kernel_distance
from fewstep.measure.summary import Summary


class Interval(NamedTuple):
    """A figure with the ends of its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}"


@dataclass(frozen=True, eq=False)
class Reference:
    """Some pictures that others are compared with.

    Attributes:
        pictures: of which it keeps all features.
        least: pictures on each side that make a Frechet distance; fewer make a kernel distance.
        drawn: how many are compared with them.
    """

    pictures: Summary
    least: int
    drawn: int

    @staticmethod
    def of(pictures: Iterable[Tensor], features: Features, least: int, drawn: int) -> Reference:
        """Of pictures (B, C, H, W) in [-1, 1], some at a time, and about as many as are compared with them."""
        found = Summary(features, keep=max(2, drawn))
        for some in pictures:
            found.update(some)
        return Reference(found, least, drawn)

    @property
    def frechet(self) -> bool:
        """Whether its distance is Frechet's."""
        return min(self.pictures.n, self.drawn) >= self.least

    @property
    def measure(self) -> str:
        """The distance, and on what, in words."""
        return f"{'Frechet' if self.frechet else 'kernel'} distance on {self.pictures.id.name}"

    def distance(self, drawn: Summary, bootstrap: Bootstrap = BOOTSTRAP) -> Figure:
        """Of what is drawn."""
        measure = frechet_distance if self.frechet else kernel_distance
        return measure(drawn, self.pictures, bootstrap=bootstrap)


def ends(figure: Figure | None) -> Interval | None:
    """A figure with its interval alone."""
    return None if figure is None else Interval(figure.value, figure.low, figure.high)


def difference(first: Figure | None, second: Figure | None) -> Interval | None:
    """The first less the second, picture by picture; None where one is not known."""
    if first is None or second is None:
        return None
    found = compare(first, second)
    return Interval(found.value, found.low, found.high)
