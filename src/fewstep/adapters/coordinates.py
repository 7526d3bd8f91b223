"""The coordinates in which a host is shown its states: the schedule's own, or those of k-diffusion.

Schedulers of diffusers that follow k-diffusion show x / alpha, whose noise is sigma / alpha, and scale the network's
input back by alpha. Pipelines of such hosts may compute with that: the latent upscaler reads `sigmas`.
"""

from __future__ import annotations

from fewstep.adapters.hosts import SIGMA_SPACE
from fewstep.adapters.rows import Call
from fewstep.core import BetaSchedule, Plan, Schedule

LEAST = 2.0**-12
"""Stands for alpha = 0, where x / alpha is not finite: the least that diffusers has, too."""

COORDINATES = ("host", "schedule")


def in_sigma_space(coordinates: str, host: str | None, schedule: Schedule) -> bool:
    """Whether a host is shown x / alpha."""
    return coordinates == "host" and host in SIGMA_SPACE and isinstance(schedule, BetaSchedule)


def factor(alpha: float) -> float:
    """What a state that is shown is multiplied by to be in the schedule's coordinates."""
    return alpha if alpha > 0 else LEAST


def alpha_before(plan: Plan, calls: list[Call], position: int) -> float:
    """alpha of the state before call `position`: of the next row that has an effect, or of the end."""
    for call in calls[position:]:
        if call is not None:
            owner, row = call
            return owner.rows[row].alpha
    last = next((owner for owner, _ in filter(None, reversed(calls))), plan)
    return last.exit[0]
