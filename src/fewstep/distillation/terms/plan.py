"""A student's plan that is learned along with it: its times, and the weights of what its rows answer.

The parameters are those of a tuned plan (`fewstep.tuning.learning`), so that any of their values is a plan that carries
the schedule's marginals exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser
from fewstep.denoise.convert import Network
from fewstep.training import STUDENT, Method, Role, Roles, check_rows
from fewstep.tuning.learning import Parameters, estimate, gram_of
from fewstep.tuning.table import table_of

PLAN = "plan"
"""The role of a plan that is learned."""


class LearnedPlan(nn.Module):
    """A plan of several rows whose times and weights are parameters.

    Args:
        plan: where it begins.
        outputs: (rows, B, ..), what its rows answer for some samples, which is what a step of a weight is measured by.

    Raises `InvalidInput` for a plan that draws noise or is not a table of times and weights.
    """

    def __init__(self, plan: Plan, schedule: Schedule, outputs: Tensor) -> None:
        super().__init__()
        table = table_of(plan)
        if table is None:
            raise InvalidInput(
                f"the times and weights of {plan.recipe.sampler} cannot be learned, as it is not a table of these: use "
                "ddim or dpmpp-2m"
            )
        self.inner = Parameters(table, schedule, gram_of(outputs))
        self.gaps = self.inner.gaps = nn.Parameter(self.inner.gaps.detach())
        self.shifts = self.inner.shifts = nn.Parameter(self.inner.shifts.detach())
        self.register_buffer("basis", self.inner.basis)

    def forward(self, denoiser: Denoiser, noise: Tensor) -> Tensor:
        """What it makes of unit noise (B, ..), with gradients."""
        here, there = self.inner.points()[:2]
        x = noise * here.sigma.to(noise)
        return self.inner.run(denoiser, x, estimate(denoiser, x, (here, there), 0), again=False)

    def plan(self) -> Plan:
        """As it is now."""
        return self.inner.plan()


class Plans(Protocol):
    """What a method says of drawing with its student."""

    def plan(self, network: Network, rows: int | None = None) -> Plan: ...


@dataclass(frozen=True, eq=False, kw_only=True)
class PlanRole(Role):
    """The role of a plan, which belongs to a student's network."""

    learned: LearnedPlan

    @property
    def module(self) -> LearnedPlan:
        return self.learned


def plan_of(method: Method, roles: Roles) -> Plan:
    """The plan that the student of some roles is to be drawn with."""
    role = roles.get(PLAN)
    return role.learned.plan() if isinstance(role, PlanRole) else method.plan(roles[STUDENT].network)


@dataclass(frozen=True)
class Settled:
    """A method whose student learned its plan along, and draws by that one alone."""

    of: Method
    learned: Plan

    @property
    def name(self) -> str:
        """Of the method."""
        return self.of.name

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        check_rows(self.name, len(self.learned.rows), rows)
        return self.learned


def settled(method: Method, roles: Roles) -> Plans:
    """How the student of some roles is to be drawn with."""
    return Settled(method, plan_of(method, roles)) if PLAN in roles else method
