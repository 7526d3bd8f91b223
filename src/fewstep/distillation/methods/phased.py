"""Regression on phases: each row of each of the student's plans goes where the teacher's trajectory is at its end.

A plan of n rows cuts the teacher's trajectory at n - 1 of its states. A row from the level t to the level s is DDIM
with the student's estimate of the data, so that estimate is to be

    x~ = (x_s - (sigma_s / sigma_t) x_t) / (alpha_s - (sigma_s / sigma_t) alpha_t)

as in progressive distillation (Salimans & Ho 2022, arXiv 2202.00512), with its truncated-SNR weight. But x_t and x_s
are states of the teacher's own trajectory, drawn once: there are no rounds, and no error of one is learned by the next.
That the trajectory is cut in phases, each learned to its end, is the idea of Wang et al. 2024 (arXiv 2405.18407), with
the teacher's states in the place of self-consistency.

A phase of a longer plan is shorter and so easier to learn than the way to the end, and one network learns several
plans. It tells their rows apart by the time: no two plans cut at the same state, and each begins a little later than
the longer one before it, where there is as good as nothing but noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.convert import Network
from fewstep.distillation.methods.endpoint import MOST_LEVELS, levels_of, met
from fewstep.distillation.methods.progressive import weight_of
from fewstep.distillation.terms import checks
from fewstep.solvers.compiler import compile
from fewstep.training import STUDENT, Batch, Draws, Loss, Needs, Phase, Roles, one_stage, schedule_of
from fewstep.training.levels import at_times, target_of

LATER = 0.1
"""How much later a plan begins than the longer one before it, as a share of the teacher's first step."""
USUAL = (4, 2, 1)


@dataclass(frozen=True)
class Phased:
    """Settings of regression on phases.

    Attributes:
        plans: numbers of rows of the plans that the student learns, each once; it recommends the first.
        levels: states that are kept of the teacher's trajectories, spread over the rows of its plan.
        times: those of these states, the noisiest first; empty are those of the teacher's plan.
    """

    name: ClassVar[str] = "phased"
    needs: ClassVar[Needs] = Needs(teacher=True, pairs=True)

    plans: tuple[int, ...] = USUAL
    levels: int = 10
    times: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        checks.take_lists(self, "plans", "times")
        checks.check_counts(self, levels=MOST_LEVELS)
        plans = self.plans
        if not plans or len(set(plans)) < len(plans) or any(type(rows) is not int or rows < 1 for rows in plans):
            raise InvalidInput(f"plans are different numbers of rows from 1, such as {USUAL}, got {plans!r}")
        if self.times and len(self.times) != self.levels:
            raise InvalidInput(f"{len(self.times)} times are given for {self.levels} levels: give as many")
        cuts = sum(plans) - len(plans)
        if cuts > self.levels - 1:
            raise InvalidInput(
                f"plans of {' and '.join(map(str, plans))} rows cut the teacher's trajectory at {cuts} states, and "
                f"{self.levels} levels have {self.levels - 1} on the way: learn more levels, or fewer plans"
            )

    def along(self, schedule: Schedule) -> tuple[float, ...]:
        """The times of the teacher's trajectories that are kept, the noisiest first."""
        return self.times or levels_of(schedule, self.levels)

    def suited(self, plan: Plan) -> Phased:
        """These settings for a teacher that draws by a plan. Raises `InvalidInput` where that has too few rows."""
        return self if self.times else replace(self, times=met(plan, self.levels, self.name))

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        if batch.along is None or batch.noise is None:
            raise InvalidInput("phased learns from the teacher's trajectories: give their noise, states and end")
        role = roles[STUDENT]
        schedule = schedule_of(role.network)
        ways = ways_of(schedule, self.along(schedule), self.plans)
        chosen = [ways[plan][row] for plan, row in self.chosen(draws)]
        data = batch.data
        here, there = (at_times(schedule, [getattr(way, end) for way in chosen], data) for end in ("begins", "ends"))
        states = torch.cat([batch.along.to(data.dtype), data[:, None]], dim=1)
        each = torch.arange(len(batch))
        x, aim = states[each, [way.first for way in chosen]], states[each, [way.last for way in chosen]]
        fresh = x.new_tensor([way.first == 0 for way in chosen]).reshape(here.sigma.shape).bool()
        x = torch.where(fresh, here.sigma * batch.noise, x)
        squared = (role.answering(batch).estimate(x, here)[0] - target_of(x, aim, here, there)).square()
        yield Loss(STUDENT, (weight_of("truncated-snr", here) * squared.flatten(1).mean(1)).mean())

    def chosen(self, draws: Draws) -> list[tuple[int, int]]:
        """Which plan and which of its rows each sample learns: the plans in equal shares, and so their rows."""
        share = draws.spread("row") * len(self.plans)
        plans = np.minimum(share.astype(int), len(self.plans) - 1)
        rows = np.array(self.plans)[plans]
        return list(zip(plans.tolist(), np.minimum((share - plans) * rows, rows - 1).astype(int).tolist(), strict=True))

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        schedule, rows = schedule_of(network), self.plans[0] if rows is None else rows
        if rows not in self.plans:
            known = " or ".join(map(str, self.plans))
            raise InvalidInput(f"a student by phased draws in {known} rows, which it learned, got {rows}")
        ways = ways_of(schedule, self.along(schedule), self.plans)[self.plans.index(rows)]
        return plan_along(schedule, ways)


class Way(NamedTuple):
    """What a row of a plan learns: from a time to another, at the places of their states; the end has the last one."""

    begins: float
    ends: float
    first: int
    last: int


@lru_cache(maxsize=16)  # what keeps a student asks for it every step
def plan_along(schedule: Schedule, ways: tuple[Way, ...]) -> Plan:
    """The plan of the rows that go these ways."""
    return compile("ddim", schedule=schedule, times=[*(way.begins for way in ways), schedule.t_clean])


@lru_cache(maxsize=16)  # every step asks for it
def ways_of(schedule: Schedule, times: tuple[float, ...], plans: tuple[int, ...]) -> tuple[tuple[Way, ...], ...]:
    """What the rows of each plan learn, of the states at some times.

    The plan of fewest rows chooses first where to cut, as evenly as it can; each longer one takes the free states that
    are the nearest to its even cuts, the noisier of two.
    """
    count = len(times)
    marks = [*times, schedule.t_clean]
    free = list(range(1, count))
    found: dict[int, tuple[Way, ...]] = {}
    for rows in sorted(plans):
        cuts = []
        for i in range(1, rows):
            wanted = i * count // rows
            cuts.append(min(free, key=lambda at: (abs(at - wanted), at)))
            free.remove(cuts[-1])
        place = sum(others > rows for others in plans)
        places = [0, *sorted(cuts), count]
        begins = [times[0] + place * LATER * (marks[1] - times[0]), *(marks[cut] for cut in places[1:-1])]
        ends = [*begins[1:], marks[-1]]
        found[rows] = tuple(Way(*way) for way in zip(begins, ends, places[:-1], places[1:], strict=True))
    return tuple(found[rows] for rows in plans)
