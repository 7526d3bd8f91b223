"""The rivals of a tuned plan: every sampler without noise on every grid, at as many rows. The strongest are known
beforehand: `contenders.json` holds the pairs of sampler and grid that were the best somewhere in a comparison over
several models (`benchmarks/contenders.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.grid import GRIDS
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.measure.impulse import impulse
from fewstep.solvers.compiler import compile
from fewstep.solvers.registry import SAMPLERS

FINALISTS = 6
"""The best of a search, which are compared on held-out noise, beside the contenders."""


def rivals_of(schedule: Schedule, rows: int, samplers: Sequence[str] | None = None) -> list[Plan]:
    """Samplers on every grid, with their own defaults: the most steps within `rows`.

    Raises `InvalidInput` for `samplers` that are unknown or draw noise; None is all the others.
    """
    known = deterministic()
    for name in samplers or ():
        if name not in known:
            raise unknown_name("sampler without noise", str(name), known)
    names = known if samplers is None else samplers
    return distinct(p for name in names for grid in GRIDS for p in fitting(name, schedule, rows, grid=grid))


@cache
def strongest() -> tuple[tuple[str, str], ...]:
    """The pairs of sampler and grid that were the best somewhere, the one that is the best alone first."""
    document = json.loads(files("fewstep.tuning").joinpath("contenders.json").read_text(encoding="utf-8"))
    return tuple((sampler, grid) for sampler, grid in document["pairs"])


def contenders_of(schedule: Schedule, rows: int) -> list[Plan]:
    """The plans of `strongest` that can be compiled, each with the most steps within `rows`."""
    return distinct(plan for name, grid in strongest() for plan in fitting(name, schedule, rows, grid=grid))


def deterministic() -> list[str]:
    """Samplers that draw no noise, those of one evaluation a step first."""
    names = [name for name, sampler in SAMPLERS.items() if not sampler.stochastic]
    return sorted(names, key=lambda name: SAMPLERS[name].evaluations)


def fitting(name: str, schedule: Schedule, rows: int, **where: Any) -> Iterator[Plan]:
    """The plan of a sampler with the most steps within `rows`; none where it cannot be compiled."""
    each = SAMPLERS[name].evaluations
    most = rows if each == 1 else min(rows, rows // each + 2)  # the first and the last step may be of one evaluation
    for steps in (None,) if "times" in where else range(most, 0, -1):
        try:
            plan = compile(name, schedule=schedule, **({} if steps is None else {"steps": steps}), **where)
        except InvalidInput:
            return
        if len(plan.rows) <= rows:
            yield plan
            return


def distinct(plans: Iterable[Plan]) -> list[Plan]:
    """The plans without those whose table an earlier one has, whatever their names."""
    seen: dict[tuple[tuple[float, ...], bytes], Plan] = {}
    for plan in plans:
        times = tuple(round(row.t, 9) for row in plan.rows)
        seen.setdefault((times, (np.round(impulse(plan).states, 9) + 0.0).tobytes()), plan)
    return list(seen.values())
