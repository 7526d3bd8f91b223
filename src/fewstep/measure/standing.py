"""Which of several figures is the best, and which are as good within noise.

Figures of the same images share the samples of their bootstrap, so each is compared with the best by a paired
difference (see `fewstep.measure.figure`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fewstep.core.errors import InvalidInput
from fewstep.measure.figure import Difference, Figure, compare


class Standing(NamedTuple):
    """How figures stand to the best of them.

    Attributes:
        best: its place; of equal ones the first.
        behind: by how much each is worse than the best, with its interval; 0 for the best.
        as_good: the places of those whose interval reaches 0: no worse than the best, as far as these images tell.
    """

    best: int
    behind: tuple[Difference, ...]
    as_good: tuple[int, ...]


def standing(figures: Sequence[Figure]) -> Standing:
    """The standing of figures of the same images. Raises `InvalidInput` for none, and for those that are not alike."""
    if not figures:
        raise InvalidInput("there is no figure to find the best of: give one at least")
    best = min(range(len(figures)), key=lambda i: _loss(figures[i]))
    behind = tuple(advantage(figures[best], figure) for figure in figures)
    return Standing(best, behind, tuple(i for i, one in enumerate(behind) if not one.sure))


def advantage(figure: Figure, base: Figure) -> Difference:
    """By how much `figure` is better than `base`, whichever direction is good, from their common bootstrap.

    Raises:
        InvalidInput: as `fewstep.measure.compare`.
    """
    found = compare(figure, base)
    if figure.better == "more":
        return found
    return Difference(-found.value, -found.high, -found.low, found.sure)


def always_better(figure: Figure, base: Figure) -> bool:
    """Whether `figure` is better than `base` in every sample of their common bootstrap."""
    moved = np.subtract(figure.replicates, base.replicates)
    return bool((moved > 0).all() if figure.better == "more" else (moved < 0).all())


def _loss(figure: Figure) -> float:
    return -figure.value if figure.better == "more" else figure.value
