"""Guidance by row as part of a tuned plan: factors r_i, by which row i takes the guidance w further or less far.

    w_i = 1 + (w - 1) r_i

They are relative, so that they carry over to other scales: r = 1 is the scale as it is, r = 0 the conditional model
alone, and at w = 1 they do nothing. They stand in the plan's recipe as the option `guidance_factors`.
"""

from __future__ import annotations

import math

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan

FACTORS = "guidance_factors"


def guided_rows(plan: Plan) -> int:
    """How many rows of a plan are guided, where all the others say that they are not, by a factor of 0."""
    factors = factors_of(plan)
    return plan.nfe if factors is None else sum(r != 0 for r in factors)


def guided_cost(plan: Plan) -> int:
    """How many guided rows cost as much as the plan: its rows, or fewer where it guides some alone."""
    return (plan.nfe + guided_rows(plan)) // 2


def factors_of(plan: Plan | None) -> tuple[float, ...] | None:
    """The factors of a plan's rows, (nfe,); None where it has none. Raises `InvalidInput` where they are unusable."""
    given = None if plan is None else plan.recipe.options.get(FACTORS)
    if plan is None or given is None:
        return None
    usable = isinstance(given, list | tuple) and len(given) == plan.nfe
    if not usable or not all(type(r) in (int, float) and math.isfinite(r) for r in given):
        raise InvalidInput(f"{FACTORS} of a plan of {plan.nfe} rows are {plan.nfe} finite numbers, got {given!r:.200}")
    return tuple(float(r) for r in given)
