"""What a variant loses, against the model as it is, by the same plan from the same noise.

Two figures, both paired image by image. The error of a picture is its distance to that of the converged solution, and
that of a variant is the error of the typical picture: its loss is the share by which that grows. Where somebody can
read what a picture shows, the loss is the share of prompts that are drawn right no more; the error is told beside it.

Fewer rows of the model as it is are measured by the same error, so that it can be said whether they would do better.
That is a question of the two alone where both draw by the best sampler that is known: a model's own is seldom that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep.benchmark.yardstick import Adherence, signed
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.measure.converged import Goal, find_plan
from fewstep.measure.distance import LEAST_ERROR, over_images, squares
from fewstep.measure.figure import BOOTSTRAP, Figure, figure_of
from fewstep.optimization.trial import percent
from fewstep.pipeline import Pipeline
from fewstep.tuning.problem import Problem
from fewstep.tuning.rivals import contenders_of
from fewstep.tuning.subject import drawing

FIRST = 128
"""Images that a loss is judged on at first; they are doubled until it is known well enough."""
FOUND_ON, SOLVED = 16, 0.05
"""Images that the converged solution's plan is found on, and the share of the own plan's error to which it is known."""
RANKED, COMPARED = 32, 128
"""Images that samplers are ranked on, and those at most that errors are compared on where they do not decide."""


class Loss(NamedTuple):
    """What a variant loses.

    Attributes:
        error: the share by which the error of the typical picture grows.
        adherence: the share of prompts that are drawn right no more, None where nobody reads pictures.
        lost: images that are not finite, of which there is no error.
    """

    error: Figure
    adherence: Figure | None
    lost: int = 0

    @property
    def decisive(self) -> Figure:
        """The figure that the allowance is about."""
        return self.error if self.adherence is None else self.adherence

    def within(self, most: float) -> bool:
        """Whether it is surely at most so much."""
        return not self.lost and self.decisive.high <= most

    def beyond(self, most: float) -> bool:
        """Whether it is surely more."""
        return bool(self.lost) or self.decisive.low > most

    def words(self, most: float) -> str:
        """What is wrong with it, where it is not within an allowance."""
        if self.lost:
            return f"{self.lost} images are not finite"
        found = self.decisive
        what = "the error grows by" if self.adherence is None else "of the prompts are drawn right no more:"
        figure = f"{what} {percent(found.value)} ({percent(found.low)} to {percent(found.high)})"
        if self.beyond(most):
            return f"{figure}, more than {most:.2%}"
        room = most - min(max(found.value, 0.0), most / 2)
        images = math.ceil(found.n * ((found.high - found.low) / 2 / room) ** 2)
        return f"{figure}, not surely within {most:.2%}: about {images:,} images would tell"


@dataclass(eq=False)
class Gallery:
    """The pictures that a pipeline makes of a plan, drawn as far as they are asked for."""

    judge: Judge
    pipe: Pipeline
    plan: Plan
    _drawn: list[Tensor] = field(default_factory=list, init=False)

    def first(self, count: int) -> Tensor:
        """(count, C, H, W), decoded; NaN where an image is lost."""
        problem, done = self.judge.problem(self.pipe), sum(map(len, self._drawn))
        for part in problem.parts(range(done, count)):
            self._drawn.append(self.pipe.decode(problem.solve(self.plan, part)))
        return torch.cat(self._drawn)[:count]


@dataclass(frozen=True, eq=False)
class Judge:
    """What variants of a pipeline are judged by.

    Attributes:
        pipe: the model as it is; `plan` and `guidance`, by which all draw.
        condition: the label or prompt of each image, by its number.
        count: images at most; `batch`: at once.
        adherence: reads pictures for what their prompts name, None where nobody can.
    """

    pipe: Pipeline
    plan: Plan
    guidance: float
    condition: Callable[[int], Any]
    count: int
    batch: int
    adherence: Adherence | None = None
    _best: dict[int, Gallery | None] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.plan.stochastic:
            raise InvalidInput(
                f"a variant is judged by the error of its pictures, and {self.plan.recipe.sampler} draws noise on the "
                "way: optimise with a sampler without noise, such as dpmpp-2m; what is found holds for others too"
            )

    def problem(self, pipe: Pipeline) -> Problem:
        """The images as a pipeline draws them."""
        found = drawing(pipe, self.condition, self.guidance)
        return Problem(
            found.denoiser, found.schedule, found.shape, name=pipe.name, batch=self.batch, device=pipe.model.device
        )

    def gallery(self, pipe: Pipeline, plan: Plan | None = None) -> Gallery:
        """Of a pipeline by a plan, the own one for None."""
        return Gallery(self, pipe, plan or self.plan)

    @cached_property
    def own(self) -> Gallery:
        """Of the model as it is."""
        return self.gallery(self.pipe)

    @cached_property
    def targets(self) -> Gallery:
        """Of the converged solution, by the model as it is."""
        goal = Goal(tolerance=SOLVED, judged=self.plan, objective="psnr")
        found = find_plan(self.problem(self.pipe).flow, range(min(FOUND_ON, self.count)), goal)
        return self.gallery(self.pipe, found.plan)

    @property
    def sizes(self) -> list[int]:
        """Numbers of images that a loss is looked at, one after the other."""
        found = [FIRST * 2**k for k in range(self.count.bit_length()) if FIRST * 2**k < self.count]
        return [*found, self.count]

    def errors(self, gallery: Gallery, count: int) -> Tensor:
        """(count,) mean squared distances to the converged solution's pictures; infinite where an image is lost."""
        return squares(gallery.first(count), self.targets.first(count))

    def judged(self, gallery: Gallery, most: float) -> tuple[int, Loss]:
        """What is lost, by as many images as tell whether it is within an allowance; and how many these are."""
        first, *more = self.sizes
        count, loss = first, self.loss(gallery, first)
        for larger in more:
            if loss.within(most) or loss.beyond(most):
                break
            count, loss = larger, self.loss(gallery, larger)
        return count, loss

    def loss(self, gallery: Gallery, count: int) -> Loss:
        """What is lost by so many images."""
        pictures = gallery.first(count)
        good = pictures.isfinite().flatten(1).all(dim=1)
        some = count if self.adherence is None else min(count, COMPARED)
        error = error_gained(self.errors(gallery, some)[good[:some]], self.errors(self.own, some)[good[:some]])
        return Loss(error, self._adherence_lost(pictures, count), int((~good).sum()))

    def beside_fewer(self, pipe: Pipeline, rows: int) -> tuple[Plan, Figure] | None:
        """The best plan of the model as it is in so many `rows`, and the share by which the error of a variant in the
        rows of the own plan is more; None where nothing draws in so few.
        """
        few = self.best(rows)
        if few is None:
            return None
        count = min(COMPARED, self.count)
        most = self.best(len(self.plan.rows), self.plan)
        own = self.gallery(pipe, self.plan if most is None else most.plan)
        return few.plan, error_gained(self.errors(own, count), self.errors(few, count))

    def best(self, rows: int, *more: Plan) -> Gallery | None:
        """By the best sampler in so many rows, of those that are known to be strong and `more`."""
        if rows not in self._best:
            plans = [*more, *contenders_of(self.pipe.schedule_at(), rows)]
            galleries = [self.gallery(self.pipe, plan) for plan in plans]
            errors = [self.errors(one, min(RANKED, self.count)) for one in galleries]
            ranked = [float(over_images(one, "psnr")) for one in errors]
            self._best[rows] = galleries[ranked.index(min(ranked))] if galleries else None
        return self._best[rows]

    def _adherence_lost(self, pictures: Tensor, count: int) -> Figure | None:
        if self.adherence is None:
            return None
        return points_lost(self._right(self.own.first(count)), self._right(pictures))

    def _right(self, pictures: Tensor) -> Tensor:
        """(n,) 1 where a picture shows what its prompt names."""
        assert self.adherence is not None
        subjects = [self.condition(number) for number in range(len(pictures))]
        bounded = signed(pictures.nan_to_num().clamp(-1e6, 1e6), self.pipe.value_range)
        return self.adherence.read(bounded, subjects)[:, 0]


def points_lost(base: Tensor, own: Tensor) -> Figure:
    """The share of prompts that are drawn right by `base` (n,) and not by the other, less those the other way round.

    The interval is that with one prompt more of each kind (Agresti & Min 2005, doi 10.1002/sim.1781, add as many):
    where none of 100 differ, that none of all would is not known.
    """
    lost = base - own
    seen = torch.cat([lost, lost.new_tensor([1.0, -1.0])])
    samples = BOOTSTRAP.weights(len(seen)) @ seen
    return figure_of("adherence lost", float(lost.mean()), samples, n=len(lost), better="less", **BOOTSTRAP.facts)


def error_gained(errors: Tensor, base: Tensor) -> Figure:
    """The share by which the typical error of images (n,) is more than that of the same images by `base`."""
    moved = (errors.clamp(min=LEAST_ERROR).log() - base.clamp(min=LEAST_ERROR).log()) / 2
    if not len(moved):
        moved = torch.full((2,), torch.inf, dtype=torch.float64)
    samples = (BOOTSTRAP.weights(len(moved)) @ moved).expm1()
    value = float(moved.mean().expm1())
    return figure_of("error gained", value, samples, n=len(moved), better="less", **BOOTSTRAP.facts)
