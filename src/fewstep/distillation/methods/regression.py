"""Regression on the teacher's results: the student draws by its own plan, and learns to end where the teacher does.

Pairs of noise and the teacher's converged image are made once. The student runs a plan of one or more rows from the
noise, with gradients through all of them, and the mean square of the difference to the image goes down. With one row
this is knowledge distillation (Luhman & Luhman 2021, arXiv 2101.02388). The times and weights of the plan can be
learned along, as solvers are for a network that stays (Tong et al. 2024, arXiv 2405.15506).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, positive
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Level
from fewstep.denoise.convert import Network
from fewstep.distillation.pictures.recording import Recorded
from fewstep.distillation.terms import checks
from fewstep.distillation.terms.plan import PLAN, LearnedPlan, PlanRole
from fewstep.solvers.compiler import compile
from fewstep.solvers.registry import SAMPLERS
from fewstep.training import (
    STUDENT,
    Batch,
    Draws,
    Loss,
    Memory,
    Needs,
    Phase,
    Role,
    Roles,
    check_rows,
    one_stage,
    schedule_of,
)

MOST_ROWS = 8


@dataclass(frozen=True)
class Regression:
    """Settings of regression.

    Attributes:
        rows: evaluations of the student, 1 to 8.
        sampler, grid: of its plan; the sampler may not draw noise.
        learn_plan: whether the times and weights of the plan are learned along, from there.
        plan_rate: the learning rate of these at its peak.
    """

    name: ClassVar[str] = "regression"
    needs: ClassVar[Needs] = Needs(teacher=True, pairs=True)

    rows: int = 1
    sampler: str = "ddim"
    grid: str = "trailing"
    learn_plan: bool = False
    plan_rate: float = 0.01

    def __post_init__(self) -> None:
        checks.check_counts(self, rows=MOST_ROWS)
        checks.check_known(self, sampler=SAMPLERS)
        if type(self.learn_plan) is not bool:
            raise InvalidInput(f"learn_plan is true or false, got {self.learn_plan!r}")
        if self.learn_plan and self.rows == 1:
            raise InvalidInput("a plan of one row goes from the first time to the last: learn one of 2 rows or more")
        positive("plan_rate", self.plan_rate)

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def roles(self, roles: Roles, batch: Batch) -> dict[str, Role]:
        """The plan, where it is learned."""
        if not self.learn_plan:
            return {}
        student = roles[STUDENT]
        plan, rows = self.plan(student.network), Recorded(student.answering(batch))
        with torch.no_grad():
            unrolled(plan, rows, noise_of(batch) * plan.entry[1])
        learned = LearnedPlan(plan, schedule_of(student.network), torch.stack(rows.answers))
        return {PLAN: PlanRole(student.network, rate=self.plan_rate, learned=learned)}

    def memory(self) -> Memory:
        return Memory(graphs=self.rows)

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        denoiser, noise, learned = roles[STUDENT].answering(batch), noise_of(batch), roles.get(PLAN)
        if isinstance(learned, PlanRole):
            drawn = learned.module(denoiser, noise)
        else:
            plan = self.plan(roles[STUDENT].network)
            drawn = unrolled(plan, denoiser, noise * plan.entry[1])
        yield Loss(STUDENT, (drawn - batch.data).square().mean(), also=(PLAN,) if learned else ())

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        check_rows(self.name, self.rows, rows)
        return student_plan(schedule_of(network), self.sampler, self.rows, self.grid)


def noise_of(batch: Batch) -> Tensor:
    """The noise of pairs. Raises `InvalidInput` where there is none."""
    if batch.noise is None:
        raise InvalidInput("regression learns from pairs of noise and what the teacher makes of it: give those")
    return batch.noise


@lru_cache(maxsize=16)  # every step asks for it
def student_plan(schedule: Schedule, sampler: str, rows: int, grid: str) -> Plan:
    """The plan of so many rows.

    Raises `InvalidInput` for a sampler that draws noise, or that takes another number of rows.
    """
    plan = compile(sampler, schedule=schedule, steps=rows, grid=grid)
    if len(plan.rows) != rows or plan.s.any() or plan.outputs != 1:
        raise InvalidInput(
            f"{sampler} draws noise or does not take {rows} rows in {rows} steps: use one with a row a step and no "
            "noise, such as ddim or dpmpp-2m"
        )
    return plan


class Estimator(Protocol):
    """What a plan is unrolled with: a denoiser, or what stands for one."""

    def estimate(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]: ...


def unrolled(plan: Plan, denoiser: Estimator, start: Tensor) -> Tensor:
    """What a plan without noise makes of states (B, ..) at its entry, with gradients through all rows."""
    registers: list[Tensor | None] = [None] * plan.registers
    registers[0] = start
    for i, (row, end) in enumerate(zip(plan.rows, plan.ends, strict=True)):
        x = registers[0]
        assert x is not None
        data, raw = denoiser.estimate(x, Level.at([row[:3]], x, (i,), [end]))
        sources = [*registers, data, raw]
        lines = np.concatenate([plan.A[i], plan.B[i]], axis=1).tolist()
        registers = [combined(line, sources) for line in lines]
    result = registers[0]
    assert result is not None
    return result


def combined(factors: Sequence[float], sources: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of factors times sources; None where all of these are zero."""
    terms = [c * source for c, source in zip(factors, sources, strict=True) if source is not None and c != 0]
    return sum(terms[1:], terms[0]) if terms else None
