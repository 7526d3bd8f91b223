"""Guidance by row as part of a tuned plan: factors r_i that strengthen or weaken the guidance w in row i.

    w_i = 1 + (w - 1) r_i

They are relative, so that they carry over to other scales: r = 1 is the scale as it is, r = 0 the conditional model
alone, and at w = 1 they do nothing. They are the plan's `guidance_factors`.
"""

from __future__ import annotations

from fewstep.core.plan import Plan

FACTORS = "guidance_factors"


def guided_rows(plan: Plan) -> int:
    """How many rows of a plan are guided: all but those whose factor is 0."""
    factors = factors_of(plan)
    return len(plan.rows) if factors is None else sum(r != 0 for r in factors)


def guided_cost(plan: Plan) -> int:
    """How many guided rows cost as much as the plan: its rows, or fewer where some are not guided."""
    return (len(plan.rows) + guided_rows(plan)) // 2


def factors_of(plan: Plan | None) -> tuple[float, ...] | None:
    """The factors of a plan's rows, (n,); None where it has none."""
    return None if plan is None else plan.guidance_factors
