"""The plans around one plan, as points of a space to search in: times, weights and fresh noise, in steps of unit size.

The plan itself is the origin. From there

    gaps      of its times in log(alpha / sigma) grow and shrink by factors, all together as long as before
    start     of its first time: the first part of the way, which is next to pure noise, is left out
    weights   of each later row go over to the estimate of the row before
    fresh     shares of the noise rise and fall, and turn at 0 and at 1

so that every point is a plan that carries the schedule's marginals exactly (`fewstep.tuning.renoised`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewstep.core.plan import Plan, TunedFor
from fewstep.core.schedule import Float, Schedule
from fewstep.tuning.learning import LEAST_GAP, lambda_of
from fewstep.tuning.renoised import Renoised, plan_of

START, MOST_START = 0.03, 0.3
"""A unit step of the start and the most of it, as shares of the whole way."""
GAP, WEIGHT, FRESH = 0.4, 0.15, 0.25
"""Unit steps of the log of a gap, of a weight and of a share of fresh noise."""
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of fresh noise, the same in all rows, that are tried in any case."""


@dataclass(frozen=True, eq=False)
class Family:
    """Plans around `own`.

    Attributes:
        free: some of `PARTS`, which may differ from those of `own`.
        tuned_for: what the plans say that they are for.
    """

    own: Renoised
    schedule: Schedule
    free: frozenset[str]
    tuned_for: TunedFor | None = None

    @property
    def rows(self) -> int:
        """Of each plan."""
        return len(self.own.fresh)

    @property
    def sizes(self) -> dict[str, int]:
        """How many numbers each part that is free has, in their order."""
        each = {"start": 1, "gaps": self.rows - 1, "weights": self.rows - 1, "fresh": self.rows - 1}
        return {name: size for name, size in each.items() if name in self.free}

    @property
    def dimensions(self) -> int:
        """Of the space."""
        return sum(self.sizes.values())

    def parts(self, point: Float) -> dict[str, Float]:
        """The numbers (d,) of a point by the name of their part, zeros of a part that is not free."""
        found = {"start": np.zeros(1), **{name: np.zeros(self.rows - 1) for name in ("gaps", "weights", "fresh")}}
        begin = 0
        for name, size in self.sizes.items():
            found[name] = np.asarray(point[begin : begin + size], np.float64)
            begin += size
        return found

    def numbers(self, point: Float) -> Renoised:
        """The times, weights and fresh noise at a point (d,)."""
        parts, n = self.parts(point), self.rows
        weights = self.own.weights.copy()
        for i, moved in enumerate(WEIGHT * parts["weights"], 1):
            weights[i, i] -= moved
            weights[i, i - 1] += moved
        fresh = np.append(turned(self.own.fresh[: n - 1] + FRESH * parts["fresh"]), self.own.fresh[n - 1 :])
        return Renoised(self.times(float(parts["start"][0]), parts["gaps"]), weights, fresh)

    def times(self, start: float, gaps: Float) -> Float:
        """(N + 1,) from steps of the start and of the gaps but the last."""
        own, schedule = self.own.times, self.schedule
        lam = np.array([lambda_of(schedule, t) for t in (*own[:-1], max(own[-1], schedule.t_min))])
        span = lam[-1] - lam[0]
        widths = np.maximum(np.diff(lam), LEAST_GAP * span / self.rows)
        widths = widths * np.exp(GAP * np.append(gaps, 0.0))
        first = lam[0] + min(abs(start) * START, MOST_START) * span
        inner = first + (lam[-1] - first) * np.cumsum(widths / widths.sum())[:-1]
        found = own.copy()
        if start:
            found[0] = schedule.time_of_lambda(first)
        if start or np.any(gaps):
            found[1:-1] = schedule.time_of_lambda(inner)
        return found

    def plan(self, point: Float) -> Plan:
        """The plan at a point (d,). Raises `InvalidInput` where its times do not fall."""
        return plan_of(self.numbers(point), self.schedule, self.tuned_for)

    def levels(self) -> list[Float]:
        """Points with the own times and weights and the same fresh noise in all rows; none where that is not free."""
        if "fresh" not in self.sizes:
            return []
        begin = self.dimensions - (self.rows - 1)  # it is the last part
        found = []
        for level in LEVELS:
            point = np.zeros(self.dimensions)
            point[begin:] = (level - self.own.fresh[: self.rows - 1]) / FRESH
            found.append(point)
        return found


PARTS = ("start", "gaps", "weights", "fresh")
"""What may be free."""


def turned(shares: Float) -> Float:
    """Shares that turn back where they reach 0 or 1."""
    found = np.mod(shares, 2.0)
    return np.where(found > 1, 2 - found, found)
