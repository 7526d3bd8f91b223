"""The signs of methods that compare distributions, whose losses say nothing, as each is against a network that moves.

Each is measured on held-out noise and data, always of the same draws, by the averaged weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from fewstep.distillation.pictures.pairs import Pairs
from fewstep.distillation.terms.matching import FAKE_SCORE, TOLD_APART
from fewstep.training import Batch, Draws, Roles

BEHIND, EASY = 1.5, 0.6
"""Of the fake score's error, as a share of the teacher's on data."""
SEEN_THROUGH = 0.95
SEED = 11


@runtime_checkable
class Signing(Protocol):
    """A method that has signs."""

    def signs(self, roles: Roles, batch: Batch, draws: Draws) -> dict[str, float]:
        """Figures of a batch of held-out data and their conditions, each a mean over it."""
        ...


def seen(method: Signing, roles: Roles, held_out: Pairs, batch: int) -> dict[str, float]:
    """The means over held-out pairs, some at a time."""
    found: dict[str, list[float]] = {}
    parts = [range(i, min(i + batch, held_out.count)) for i in range(0, held_out.count, batch)]
    for part in parts:
        samples = held_out.batch(part)
        draws = Draws(SEED, 0, part, part, held_out.count, samples.data.device)
        for name, value in method.signs(roles, samples, draws).items():
            found.setdefault(name, []).append(value)
    return {name: float(np.average(values, weights=[*map(len, parts)])) for name, values in found.items()}


def words_on(figures: Mapping[str, float]) -> list[tuple[str, str]]:
    """What is to be said of figures that have left their range, with what to do, by name."""
    found: list[tuple[str, str]] = []
    error = figures.get(FAKE_SCORE)
    if error is not None and error > BEHIND:
        words = (
            f"its error on drawings is {error:.2g} times the teacher's on data: it does not keep up with the student"
        )
        found.append((FAKE_SCORE, f"{words}; raise ratio, or lower the student's rate"))
    if error is not None and error < EASY:
        words = f"its error on drawings is {error:.2g} times the teacher's on data: drawings are simpler than data"
        found.append((FAKE_SCORE, f"{words}; lower the guidance, or give dmd an adversary, which knows the data"))
    if figures.get(TOLD_APART, 0.0) > SEEN_THROUGH:
        words = f"the discriminator tells {figures[TOLD_APART]:.0%} of data and drawings apart, and so teaches little"
        found.append((TOLD_APART, f"{words}; lower critic or critic_rate, or train longer without adversary first"))
    return found
