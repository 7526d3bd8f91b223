"""Figure 3: alpha, sigma and lambda of the noise schedules over time, and where each grid puts its steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fewstep.core.grid import grid_times
from fewstep.core.schedule import Float, Schedule

SCHEDULES = ("linear", "scaled_linear", "cosine", "flow", "edm")
POINTS = 257


class Curves(NamedTuple):
    """A schedule over time; `share` is 0 at clean data and 1 at the noisiest time, all (257,)."""

    share: Float
    time: Float
    alpha: Float
    sigma: Float
    lam: Float


class Levels(NamedTuple):
    """The curves of each schedule, and the lambda of each noisy time of each grid on `grid_schedule`."""

    curves: Mapping[str, Curves]
    grid_schedule: Schedule
    steps: int
    times: Mapping[str, Float]
    grids: Mapping[str, Float]

    @property
    def finding(self) -> str:
        """What the numbers say, in a sentence."""
        shares = sorted((int(np.sum(lams < 0)), name) for name, lams in self.grids.items())
        if len(shares) < 2 or shares[0][0] == shares[-1][0]:
            return "What a time means differs from schedule to schedule"
        (least, low), (most, high) = shares[0], shares[-1]
        return f"{high} takes {most} of {self.steps} steps where noise outweighs data, {low} {least}"

    def document(self) -> dict[str, Any]:
        """All numbers as JSON-serialisable data; null is infinite."""
        return {
            "figure": "schedules",
            "finding": self.finding,
            "schedules": {
                name: {key: _finite(values) for key, values in zip(_NAMES, curves, strict=True)}
                for name, curves in self.curves.items()
            },
            "grids": {
                "schedule": self.grid_schedule.spec,
                "steps": self.steps,
                **{
                    name: {"time": self.times[name].tolist(), "lambda": _finite(lams)}
                    for name, lams in self.grids.items()
                },
            },
        }

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """A level a line; `share` is empty for grids."""
        rows: list[list[Any]] = [
            ["schedule", name, *point]
            for name, curves in self.curves.items()
            for point in zip(*map(_finite, curves), strict=True)
        ]
        for name, times in self.times.items():
            s = self.grid_schedule
            columns = (times, s.alpha(times), s.sigma(times), s.lam(times))
            rows += [["grid", name, None, *point] for point in zip(*map(_finite, columns), strict=True)]
        return ["kind", "name", *_NAMES], rows


_NAMES = ("share", "time", "alpha", "sigma", "lambda")


def _finite(values: Float) -> list[float | None]:
    return [v if math.isfinite(v) else None for v in values.tolist()]


def curves_of(schedule: Schedule) -> Curves:
    """The schedule at times that lie closer at both ends."""
    share = (1 - np.cos(np.linspace(0, np.pi, POINTS))) / 2
    time = schedule.t_clean + share * (schedule.t_max - schedule.t_clean)
    time[-1] = schedule.t_max
    return Curves(share, time, schedule.alpha(time), schedule.sigma(time), schedule.lam(time))


def levels(
    schedules: Mapping[str, Schedule], grids: Sequence[str], *, grid_schedule: Schedule, steps: int = 10
) -> Levels:
    """The curves of `schedules` by name, and the times of `grids` in so many steps on `grid_schedule`.

    Raises `InvalidInput` for an unknown grid, and for one that cannot take so many steps on that schedule.
    """
    times = {name: grid_times(name, grid_schedule, steps) for name in grids}
    lams = {name: grid_schedule.lam(t[:-1]) for name, t in times.items()}
    return Levels({name: curves_of(s) for name, s in schedules.items()}, grid_schedule, steps, times, lams)
