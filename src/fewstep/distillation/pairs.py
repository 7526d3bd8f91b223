"""What a teacher makes of noise, drawn once and kept: pairs for regression, and images for the other methods.

Pair n has noise of its own, by its number, and the condition of one of the subjects in turn. Only the teacher's states
are kept, in parts of 512 that appear whole or not at all, so that an interrupted run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.pipeline import Order, Pipeline
from fewstep.pipeline.stages import Conditioned, check, denoiser_of, encode
from fewstep.run.eager import sample
from fewstep.run.noise import START, unit_noise
from fewstep.training import Batch
from fewstep.zoo import container

PART = 512
FIRST_SEED = 2**42
"""Seeds of the noise of pairs start here, far from those that people draw with."""
MOST_PART = 1 << 32


@dataclass(frozen=True, eq=False)
class Teacher:
    """How a teacher draws: its pipeline and an order of one image of each subject, at its guidance and by its plan."""

    pipe: Pipeline
    order: Order

    @staticmethod
    def of(pipe: Pipeline, subjects: Sequence[Any] | None, guidance: float | None, steps: int) -> Teacher:
        """The teacher that draws subjects, None for all of its classes, in so many steps of its own sampler."""
        order = pipe.order(subjects, guidance=guidance, steps=steps)
        if not isinstance(order.drawing.guidance.scale, float | int):
            raise InvalidInput("a teacher's guidance is one scale for all of its rows: give a number")
        check(pipe.model, order)
        return Teacher(pipe, order)

    @property
    def guidance(self) -> float:
        """The scale."""
        return float(self.order.drawing.guidance.scale)  # type: ignore[arg-type]  # `of` saw to it

    @property
    def identity(self) -> dict[str, Any]:
        """What decides what it draws, as plain JSON values."""
        drawing = self.order.drawing
        return {
            "teacher": self.pipe.model.digest,
            "plan": self.order.plan.digest,
            "guidance": self.guidance,
            "subjects": list(drawing.prompts or drawing.labels or ()),
        }


class Conditions:
    """The conditions of the subjects, each encoded once, where the network is."""

    def __init__(self, teacher: Teacher) -> None:
        model = teacher.pipe.model
        images = list(teacher.order.drawing.each)
        self.count = len(images)
        self.all = Conditioned.of(model, encode(model, images))

    def of(self, numbers: Sequence[int]) -> Conditioned:
        """Those of some samples, whose subjects come in turn."""
        at = [number % self.count for number in numbers]
        own = {name: value[at] for name, value in self.all.positive.items()}
        negative = self.all.negative
        away = None if negative is None else {name: value[at] for name, value in negative.items()}
        return Conditioned(own, away, None, tuple(self.all.acting[i] for i in at))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Noise, and what the teacher makes of it; data for `fewstep.training`.

    Attributes:
        states: (count, c, h, w), the teacher's.
        first: the number of the first pair.
    """

    teacher: Teacher
    conditions: Conditions
    states: Tensor
    first: int = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.states)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What names them."""
        return {**self.teacher.identity, "count": self.count, "first": self.first}

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Some pairs, by their numbers from 0."""
        own = [self.first + number for number in numbers]
        found, device = self.conditions.of(own), self.teacher.pipe.model.device
        return Batch(
            self.states[list(numbers)].to(device),
            noise_of(own, self.states.shape[1:], device),
            found.positive,
            found.negative,
        )


def noise_of(numbers: Sequence[int], shape: Sequence[int], device: torch.device | str) -> Tensor:
    """Unit noise (B, *shape) of some pairs."""
    like = torch.empty((len(numbers), *shape), device=device)
    return unit_noise([FIRST_SEED + number for number in numbers], START, like)


def drawn(
    teacher: Teacher,
    count: int,
    folder: Path,
    first: int = 0,
    batch: int = 64,
    watch: Callable[[int, int], None] = lambda done, of: None,
) -> Pairs:
    """`count` pairs with the numbers from `first`, from the parts in `folder` as far as these are there.

    Raises `InvalidInput` where a part belongs to another teacher, plan, guidance or other subjects.
    """
    folder.mkdir(parents=True, exist_ok=True)
    conditions = Conditions(teacher)
    parts: list[Tensor] = []
    for begin in range(first, first + count, PART):
        numbers = range(begin, min(begin + PART, first + count))
        path = folder / f"{begin:09d}-{len(numbers)}.safetensors"
        parts.append(_kept(path, teacher) if path.exists() else _made(path, teacher, conditions, numbers, batch))
        watch(numbers[-1] + 1 - first, count)
    return Pairs(teacher, conditions, torch.cat(parts), first)


def _kept(path: Path, teacher: Teacher) -> Tensor:
    file = container.read(path, MOST_PART)
    if json.loads(file.metadata.get("pairs", "null")) != json.loads(json.dumps(teacher.identity)):
        raise InvalidInput(
            f"{path} holds pairs of another teacher, plan, guidance or other subjects: give another folder, or remove "
            "it"
        )
    return file.tensors()["states"]


def _made(path: Path, teacher: Teacher, conditions: Conditions, numbers: range, batch: int) -> Tensor:
    states = torch.cat([solved(teacher, conditions, numbers[i : i + batch]) for i in range(0, len(numbers), batch)])
    container.write(path, {"states": states}, {"pairs": teacher.identity})
    return states


def solved(teacher: Teacher, conditions: Conditions, numbers: Sequence[int], plan: Plan | None = None) -> Tensor:
    """(B, c, h, w) on the host: what the teacher, or another plan of its network, makes of the noise of some pairs."""
    model, order = teacher.pipe.model, teacher.order
    plan = order.plan if plan is None else plan
    drawing = order.drawing
    denoiser = denoiser_of(model, drawing.guidance, conditions.of(numbers), plan)
    noise = noise_of(numbers, model.state_shape(drawing.height, drawing.width), model.device)
    return sample(plan, denoiser, start=noise * plan.entry[1], seed=list(numbers)).float().cpu()
