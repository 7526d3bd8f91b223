"""How a teacher draws: its pipeline, an order of what it is asked for, and what it makes of noise by number."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.base import Denoiser
from fewstep.distillation.pictures.recording import Recorded
from fewstep.pipeline import Order, Pipeline
from fewstep.pipeline.stages import Conditioned, check, denoiser_of, encode
from fewstep.run.eager import NonFinite, sample
from fewstep.run.noise import START, unit_noise

FIRST_SEED = 2**42
"""Seeds of the noise of pairs start here, far from those that people draw with."""
USUAL_STEPS = 20


@dataclass(frozen=True, eq=False)
class Teacher:
    """How a teacher draws: its pipeline and an order of one image of each subject, at its guidance and by its plan.

    Attributes:
        along: the times at which the states of its trajectories are kept too.
    """

    pipe: Pipeline
    order: Order
    along: tuple[float, ...] = ()

    @staticmethod
    def of(
        pipe: Pipeline,
        subjects: Sequence[Any] | None,
        guidance: float | None,
        steps: int | None,
        plan: Plan | None = None,
    ) -> Teacher:
        """The teacher that draws subjects, None for all of its classes.

        Without a `plan` it is one of so many `steps` of its own sampler, or of DDIM where it is a student with a plan
        of its own. None is that plan, or 20 steps.
        """
        check_subjects(pipe, subjects)
        sampling: dict[str, Any] = {"steps": USUAL_STEPS if steps is None else steps}
        if "plan" in pipe.model.recommended.get("sampling", {}):
            sampling = {} if steps is None else {"sampler": "ddim", **sampling}
        if plan is not None:
            sampling = {"plan": plan}
        order = pipe.order(subjects, guidance=guidance, sampling=sampling)
        if not isinstance(order.drawing.guidance.scale, float | int):
            raise InvalidInput("a teacher's guidance is one scale for all of its rows: give a number")
        pipe.model.conditioner.check(pipe.model.name, order.drawing, order.plan)
        one = replace(order, drawing=next(order.drawing.each))  # as never all are drawn at once
        check(pipe.model, one)
        return Teacher(pipe, order)

    @property
    def guidance(self) -> float:
        """The scale."""
        return float(self.order.drawing.guidance.scale)  # type: ignore[arg-type]  # `of` saw to it

    @property
    def guides(self) -> bool:
        """Whether it is guided, at two evaluations a row."""
        return self.pipe.model.conditioner.guides_away(self.order.drawing.guidance)

    def keeping(self, along: Sequence[float]) -> Teacher:
        """The same teacher, which keeps states at some times. Raises `InvalidInput` for times that it does not meet."""
        met = [row.t for row in self.order.plan.rows]
        strange = [time for time in along if time not in met]
        if strange:
            recipe = self.order.plan.recipe
            raise InvalidInput(
                f"the method learns from the teacher's states at {len(along)} times, and the teacher's plan, "
                f"{len(met)} rows of {recipe.sampler} on {recipe.grid}, does not meet {strange[0]:g}: give times that "
                "it meets, or none"
            )
        return replace(self, along=tuple(along))

    @property
    def identity(self) -> dict[str, Any]:
        """What decides what it draws, as plain JSON values."""
        subjects = list(self.order.drawing.subjects)
        kept = {"along": list(self.along)} if self.along else {}
        return kept | {
            "teacher": self.pipe.model.digest,
            "plan": self.order.plan.digest,
            "guidance": self.guidance,
            "subjects": f"{len(subjects)}, {hashlib.sha256(json.dumps(subjects).encode()).hexdigest()[:16]}",
        }


def check_subjects(pipe: Pipeline, subjects: Sequence[Any] | None) -> None:
    """Raise `InvalidInput` for labels where the model draws from words, words where it draws classes, and nothing."""
    name, words = pipe.model.name, pipe.model.conditioner.field == "prompts"
    if words and not (subjects and all(isinstance(one, str) for one in subjects)):
        raise InvalidInput(
            f"{name} draws from words, and a student learns from pictures of prompts, got "
            f"{'labels' if subjects else 'none'}: give prompts"
        )
    if not words and any(isinstance(one, str) for one in subjects or ()):
        raise InvalidInput(f"{name} draws classes, and got prompts: give labels, or nothing for every class")


class Conditions:
    """The conditions of the subjects, each encoded once and kept on the host."""

    def __init__(self, teacher: Teacher) -> None:
        self.model, self.subjects = teacher.pipe.model, list(teacher.order.drawing.subjects)
        self.each = encode(self.model, list(teacher.order.drawing.each))

    @property
    def guided(self) -> bool:
        """Whether there is anything to guide by."""
        return any(one.negative is not None for one in self.each)

    def of(self, numbers: Sequence[int]) -> Conditioned:
        """Those of some samples, whose subjects come in turn, where the network is."""
        return Conditioned.of(self.model, [self.each[number % len(self.each)] for number in numbers])


def noise_of(numbers: Sequence[int], shape: Sequence[int], device: torch.device | str) -> Tensor:
    """Unit noise (B, *shape) of some pairs."""
    like = torch.empty((len(numbers), *shape), device=device)
    return unit_noise([FIRST_SEED + number for number in numbers], START, like)


def solved(teacher: Teacher, conditions: Conditions, numbers: Sequence[int], plan: Plan | None = None) -> Tensor:
    """(B, c, h, w) on the host: what the teacher, or another plan of its network, makes of the noise of some pairs."""
    model, order = teacher.pipe.model, teacher.order
    plan = order.plan if plan is None else plan
    drawing = order.drawing
    denoiser = denoiser_of(model, drawing.guidance, conditions.of(numbers), plan)
    noise = noise_of(numbers, model.state_shape(drawing.height, drawing.width), model.device)
    return run(plan, denoiser, noise, numbers)


def followed(teacher: Teacher, conditions: Conditions, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(B, c, h, w) what the teacher makes of the noise of some pairs, and (B, levels, c, h, w) its states on the way.

    These are in half precision, whose rounding is far below the noise in them.
    """
    model, order = teacher.pipe.model, teacher.order
    recorded = Recorded(denoiser_of(model, order.drawing.guidance, conditions.of(numbers), order.plan))
    noise = noise_of(numbers, model.state_shape(order.drawing.height, order.drawing.width), model.device)
    ends = run(order.plan, recorded, noise, numbers)
    return ends, torch.stack([recorded.at(time).half().cpu() for time in teacher.along], dim=1)


def run(plan: Plan, denoiser: Denoiser, noise: Tensor, numbers: Sequence[int]) -> Tensor:
    """(B, c, h, w) on the host: what a plan makes of unit noise. Pictures that are lost are NaN or infinite."""
    try:
        return sample(plan, denoiser, start=noise * plan.entry[1], seed=list(numbers)).float().cpu()
    except NonFinite as lost:
        return lost.result.float().cpu()
