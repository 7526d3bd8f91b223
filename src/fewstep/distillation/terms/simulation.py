"""The states that a student meets while it draws, so that it learns from its own mistakes and not from states of data.

Backward simulation (Yin et al. 2024, arXiv 2405.14867, section 4.5): the input of row j is what the student itself
makes of noise in the rows before, without gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Level
from fewstep.solvers.compiler import compile
from fewstep.training import Batch, Draws, Role, check_rows
from fewstep.training.levels import column, of_rows


class Turn(NamedTuple):
    """What a sample learns: a row of a plan."""

    plan: Plan
    row: int

    @property
    def level(self) -> tuple[float, float, float]:
        """(t, alpha, sigma) of the state that it is given."""
        return self.plan.rows[self.row][:3]


@lru_cache(maxsize=16)  # every step asks for it
def plans_of(schedule: Schedule, sampler: str, rows: int, times: tuple[float, ...] = ()) -> tuple[Plan, ...]:
    """The plans of a student, the first one with so many `rows`, each with another number.

    Args:
        times: of its rows, the noisiest first; where one is above the one before, another plan begins. Empty are those
            of the trailing grid, for one plan.

    Raises `InvalidInput` for other numbers of rows, times that the schedule has not, and a sampler whose rows remember
    more than the state.
    """
    if not times:
        found = [compile(sampler, schedule=schedule, steps=rows, grid="trailing")]
    else:
        parts = falling(times)
        if len(parts[0]) != rows or len({len(part) for part in parts}) < len(parts):
            raise InvalidInput(
                f"times are those of {rows} rows, and then of plans with other numbers of rows, each falling; got "
                f"{', '.join(f'{t:g}' for t in times)}, which are plans of {', '.join(str(len(p)) for p in parts)}"
            )
        found = [compile(sampler, schedule=schedule, times=[*part, schedule.t_clean]) for part in parts]
    if any(plan.registers != 1 or len(plan.rows) != len(plan.recipe.times) - 1 for plan in found):
        raise InvalidInput(
            f"a student that learns from states of its own draws by a sampler of a row a step without memory, and "
            f"{sampler} is none: use consistency or ddim"
        )
    return tuple(found)


def falling(times: Sequence[float]) -> list[tuple[float, ...]]:
    """Some times in parts that fall."""
    parts: list[list[float]] = [[]]
    for before, time in zip([math.inf, *times], times, strict=False):
        if time >= before:
            parts.append([])
        parts[-1].append(time)
    return [tuple(part) for part in parts]


def plan_among(plans: Sequence[Plan], rows: int | None, method: str) -> Plan:
    """The plan of so many rows, None for the first. Raises `InvalidInput` where there is none."""
    if rows is None:
        return plans[0]
    for plan in plans:
        if len(plan.rows) == rows:
            return plan
    if len(plans) == 1:
        check_rows(method, len(plans[0].rows), rows)
    known = " or ".join(str(len(plan.rows)) for plan in plans)
    raise InvalidInput(f"a student by {method} draws in {known} rows, which it learned, got {rows}")


def turns_of(plans: Sequence[Plan], draws: Draws) -> list[Turn]:
    """Which row of which plan each sample learns: the plans in equal shares, and so the rows of each."""
    found = []
    for share in draws.spread("row") * len(plans):
        plan = plans[min(int(share), len(plans) - 1)]
        found.append(Turn(plan, min(int(share % 1 * len(plan.rows)), len(plan.rows) - 1)))
    return found


@torch.no_grad()
def reached(turns: Sequence[Turn], student: Role, batch: Batch, draws: Draws) -> Tensor:
    """The states (B, ..) that each sample's row is given, from noise by the student's own rows before."""
    shape = batch.data.shape[1:]
    x = column([turn.plan.entry[1] for turn in turns], batch.data) * draws.normal("start", shape).to(batch.data)
    for i in range(max(turn.row for turn in turns)):
        going = [place for place, turn in enumerate(turns) if turn.row > i]
        plans, states = [turns[place].plan for place in going], x[going]
        level = level_of([Turn(plan, i) for plan in plans], states)
        data, raw = student.answering(batch.take(going)).estimate(states, level)
        kept, of_data, of_raw, of_noise = (
            column(values, states)
            for values in zip(*((p.A[i, 0, 0], p.B[i, 0, 0], p.B[i, 0, 1], p.s[i, 0]) for p in plans), strict=True)
        )
        found = kept * states + of_data * data + of_raw * raw
        if of_noise.any():
            found = found + of_noise * draws.normal(f"row {i}", shape).to(x)[going]
        x[going] = found
    return x


def drawn(turns: Sequence[Turn], student: Role, batch: Batch, draws: Draws) -> Tensor:
    """The student's estimates of the data (B, ..), each at one row of its plan, with gradients of that row alone."""
    x = reached(turns, student, batch, draws)
    return student.answering(batch).estimate(x, level_of(turns, x))[0]


def level_of(turns: Sequence[Turn], x: Tensor) -> Level:
    """The level of states `x` (B, ..) at the rows of each."""
    ends = [turn.plan.ends[turn.row] for turn in turns]
    return of_rows([turn.level for turn in turns], x)._replace(rows=[turn.row for turn in turns], ends=ends)
