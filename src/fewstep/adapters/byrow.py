"""Guidance by row of a tuned plan inside a pipeline of diffusers, through its callback at the end of each step.

    by_row = GuidanceByRow("plan.json", 7.5)
    pipe.scheduler = PlanScheduler.from_plan(by_row.plan, pipe.scheduler.config)
    pipe("a fox", num_inference_steps=by_row.plan.steps, guidance_scale=by_row.first, callback_on_step_end=by_row)

A scheduler cannot set the guidance of its pipeline. The callback can: it sets the scale of the evaluation that comes
next. A row that the plan does not guide still costs two evaluations here, as pipelines double their batch once for all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fewstep.core import InvalidInput, Plan
from fewstep.denoise import GuidanceSchedule

LEAST = math.nextafter(1.0, 2.0)
"""What pipelines still take for guidance, which is on above 1 only: the conditional model but for rounding."""


class GuidanceByRow:
    """The callback of one plan at one scale; it holds no state of a run.

    Args:
        plan: with guidance by row, or its file.
        scale: of guidance that the rows take further or less far, above 1.

    Attributes:
        plan: the same without its guidance by row, for `PlanScheduler.from_plan`.
        weights: the scale of each row. Below 1 it is 1, as pipelines switch guidance off there.

    Raises:
        InvalidInput: the plan has no guidance by row, or the scale is none of guidance.
    """

    def __init__(self, plan: Plan | str | os.PathLike[str], scale: float):
        plan = plan if isinstance(plan, Plan) else Plan.load(plan)
        if plan.guidance_factors is None:
            raise InvalidInput(
                f"the plan {plan.digest} has no guidance by row: give it to PlanScheduler.from_plan as it is"
            )
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 1 < scale < math.inf:
            raise InvalidInput(f"scale must be a number above 1, got {scale!r:.60}: pipelines do not guide at others")
        followed: GuidanceSchedule = GuidanceSchedule.following(float(scale), plan)
        self.weights = tuple(max(w, LEAST) for w in followed.over(plan))
        self.plan = replace(plan, guidance_factors=None)

    @property
    def first(self) -> float:
        """The scale to call the pipeline with, that of the first row."""
        return self.weights[0]

    def __call__(self, pipe: Any, index: int, timestep: Any, kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Set the scale of the evaluation that comes next.

        Raises:
            InvalidInput: the pipeline keeps no scale, runs another plan, or was called with another than `first`.
        """
        own = getattr(pipe, "_guidance_scale", None)
        if own is None:
            raise InvalidInput(
                f"{type(pipe).__name__} has no guidance scale that can be set: tune with `fewstep tune "
                "--constant-guidance`, or draw with fewstep.load"
            )
        if getattr(pipe.scheduler, "plan", None) != self.plan:
            raise InvalidInput(
                "the pipeline runs another plan: set pipe.scheduler = PlanScheduler.from_plan(by_row.plan, config)"
            )
        if index == 0 and own != self.first:
            raise InvalidInput(
                f"the first row was guided by {own:g}, and this plan guides it by {self.first:g}: call the pipeline "
                "with guidance_scale=by_row.first"
            )
        if index + 1 < len(self.weights):
            pipe._guidance_scale = self.weights[index + 1]
        return kwargs
