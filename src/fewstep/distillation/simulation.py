"""The states that a student meets while it draws, so that it learns from its own mistakes and not from states of data.

Backward simulation (Yin et al. 2024, arXiv 2405.14867, section 4.5): the input of row j is what the student itself
makes of noise in the rows before, without gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.base import Level
from fewstep.training import Batch, Draws, Role
from fewstep.training.levels import of_rows


def check_simple(plan: Plan) -> Plan:
    """The plan; raises `InvalidInput` for one whose rows remember more than the state."""
    if plan.registers != 1:
        raise InvalidInput(
            f"a student that learns from states of its own draws by a sampler without memory, and "
            f"{plan.recipe.sampler} remembers earlier rows: use consistency or ddim"
        )
    return plan


def starts(plan: Plan, batch: Batch, draws: Draws) -> Tensor:
    """(B, ..) noise at the entry of a plan."""
    return plan.entry[1] * draws.normal("start", batch.data.shape[1:]).to(batch.data)


def rows_of(plan: Plan, draws: Draws) -> list[int]:
    """Which row of a plan each sample learns: all in equal shares."""
    count = len(plan.rows)
    return [min(int(share * count), count - 1) for share in draws.spread("row")]


@torch.no_grad()
def reached(plan: Plan, student: Role, batch: Batch, rows: Sequence[int], draws: Draws) -> Tensor:
    """The states (B, ..) that each sample's row of the plan is given, from noise by the student's own rows."""
    x = starts(plan, batch, draws)
    for i in range(max(rows, default=0)):
        going = [place for place, row in enumerate(rows) if row > i]
        part, row = batch.take(going), plan.rows[i]
        states = x[going]
        level = Level.at([row[:3]], states, (i,), plan.ends[i : i + 1])
        data, raw = student.answering(part).estimate(states, level)
        (kept,), weights = plan.A[i, 0].tolist(), plan.B[i, 0].tolist()
        found = kept * states + sum(w * one for w, one in zip(weights, (data, raw), strict=True))
        if plan.s[i, 0]:
            found = found + plan.s[i, 0] * draws.normal(f"row {i}", batch.data.shape[1:]).to(x)[going]
        x[going] = found
    return x


def drawn(plan: Plan, student: Role, batch: Batch, draws: Draws) -> Tensor:
    """The student's estimates of the data (B, ..), each at one row of its plan, with gradients of that row alone."""
    rows = rows_of(plan, draws)
    x = reached(plan, student, batch, rows, draws)
    level = of_rows([plan.rows[row][:3] for row in rows], x)._replace(rows=rows, ends=[plan.ends[row] for row in rows])
    return student.answering(batch).estimate(x, level)[0]
