"""What plans are tuned on: a model, and images that are named by numbers, so that noise is held out by its number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser, as_denoiser
from fewstep.denoise.cfg import CFG
from fewstep.denoise.guided import Guided
from fewstep.denoise.scale import EVERYWHERE
from fewstep.measure.converged import Flow
from fewstep.measure.counting import Count, counted
from fewstep.measure.distance import OBJECTIVES, overall, squares
from fewstep.run.eager import NonFinite, sample
from fewstep.run.noise import START, unit_noise
from fewstep.solvers.compiler import compile
from fewstep.tuning.rivals import strongest

FIRST_SEED = 2**40
"""Seeds of the noise for tuning start here, far from those that people draw with."""


class Solutions(NamedTuple):
    """The numbers of some images, and their converged solutions (B, ..)."""

    numbers: Sequence[int]
    targets: Tensor

    def first(self, count: int) -> Solutions:
        """So many of them."""
        return Solutions(self.numbers[:count], self.targets[:count])

    def after(self, count: int) -> Solutions:
        """Those after so many."""
        return Solutions(self.numbers[count:], self.targets[count:])


@dataclass(frozen=True)
class Problem:
    """A model and endless images to measure plans on. Image i has noise of its own, and its own condition.

    Attributes:
        denoiser: from the numbers of the images of a batch to its denoiser; it must be differentiable in its input.
        schedule: the noise schedule of the model.
        shape: of one state, such as (C, H, W).
        digest: of the model; a plan that is tuned to it says so. Empty where there is none.
        settings: what else the plan is tuned for, such as the guidance scale; plain JSON values.
        elsewhere: other settings of the same model, by name, on which the tuned plan is tried too.
        seed: names another endless row of noise.
        batch: images that the network sees at once.
        objective: "psnr" or "rmse", what the error of a plan is, see `fewstep.measure.distance`.
        default: the plan of so many rows that is used without tuning; None is that of the strongest pair of
            `fewstep.tuning.rivals`.
        draw: draws (rows, images) as they are to be drawn, decoded, to measure what that takes; None runs the default.
        picture: a PNG file of states (B, ..), one beside the other; None where they are not of pictures.
    """

    denoiser: Callable[[Sequence[int]], Denoiser]
    schedule: Schedule
    shape: tuple[int, ...]
    name: str = "model"
    digest: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    elsewhere: Mapping[str, Callable[[Sequence[int]], Denoiser]] = field(default_factory=dict)
    seed: int = 0
    batch: int = 64
    device: torch.device | str = "cpu"
    objective: str = "psnr"
    default: Callable[[int], Plan] | None = None
    draw: Callable[[int, int], Any] | None = None
    picture: Callable[[Tensor], bytes] | None = None

    @staticmethod
    def of(
        denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor],
        shape: Sequence[int],
        schedule: Schedule | None = None,
        **more: Any,
    ) -> Problem:
        """The problem of one denoiser, the same for all images; `more` are attributes.

        Raises `InvalidInput` where neither the denoiser nor the caller gives a noise schedule.
        """
        known = as_denoiser(denoiser)
        schedule = schedule or known.schedule
        if schedule is None:
            raise InvalidInput("this denoiser does not know its noise schedule: give schedule=")
        return Problem(lambda numbers: known, schedule, tuple(shape), **more)

    def __post_init__(self) -> None:
        if not self.shape or not all(type(size) is int and size > 0 for size in self.shape):
            raise InvalidInput(f"shape must hold the positive sizes of one state, got {self.shape!r}")
        if type(self.seed) is not int or not 0 <= self.seed < 2**20:
            raise InvalidInput(f"seed must be a whole number from 0 to {2**20 - 1}, got {self.seed!r}")
        if type(self.batch) is not int or self.batch < 1:
            raise InvalidInput(f"batch must be a whole number of at least 1, got {self.batch!r}")
        if self.objective not in OBJECTIVES:
            raise unknown_name("objective", str(self.objective), OBJECTIVES)

    def noise(self, numbers: Sequence[int]) -> Tensor:
        """Unit noise of these images, (B, *shape), float32."""
        like = torch.empty((len(numbers), *self.shape), device=self.device)
        return unit_noise([FIRST_SEED * (self.seed + 1) + n for n in numbers], START, like)

    def begun(self, numbers: Sequence[int]) -> Denoiser:
        """The denoiser of a batch; raises `InvalidInput` for one that remembers rows, which has no gradient to give."""
        denoiser = self.denoiser(numbers)
        if denoiser.begin() is not denoiser:
            raise InvalidInput(
                f"{type(denoiser).__name__} remembers earlier rows of a run, so a row has no gradient of its own: tune "
                "without momentum"
            )
        return denoiser

    def following(self, plan: Plan, numbers: Sequence[int]) -> Denoiser:
        """The denoiser of a batch as `plan` runs it, whose guidance by row it follows."""
        denoiser = self.begun(numbers)
        return denoiser.following(plan) if isinstance(denoiser, Guided) else denoiser

    def solve(self, plan: Plan, numbers: Sequence[int], around: Callable[[Denoiser], Denoiser] | None = None) -> Tensor:
        """What `plan` makes of the noise of these images, (B, *shape); `around` is put around each batch's denoiser.

        Images that are lost are NaN or infinite.
        """
        results = []
        for part in self.parts(numbers):
            denoiser = self.following(plan, part)
            denoiser = denoiser if around is None else around(denoiser)
            try:
                results.append(sample(plan, denoiser, noise=self.noise(part), seed=list(part)))
            except NonFinite as lost:
                results.append(lost.result)
        return torch.cat(results)

    @property
    def flow(self) -> Flow:
        """What is solved for the converged solutions."""
        return Flow(self.solve, self.schedule, self.name)

    def untuned(self, rows: int) -> Plan:
        """The plan that is used without tuning."""
        if self.default is not None:
            return self.default(rows)
        sampler, grid = strongest()[0]
        return compile(sampler, schedule=self.schedule, steps=rows, grid=grid)

    def drawn(self, rows: int) -> Any:
        """A batch of images in so many rows, as they are to be drawn."""
        if self.draw is not None:
            return self.draw(rows, self.batch)
        return self.solve(self.untuned(rows), range(self.batch))

    def solve_counted(self, plan: Plan, numbers: Sequence[int]) -> tuple[Tensor, float]:
        """What `solve` makes, and the evaluations of the network that an image took, guidance counted."""
        counts: list[Count] = []

        def around(denoiser: Denoiser) -> Denoiser:
            own, count = counted(denoiser)
            counts.append(count)
            return own

        states = self.solve(plan, numbers, around)
        total, images = sum(count.images for count in counts), len(numbers)
        return states, total / images if total % images else total // images

    @property
    def guided(self) -> bool:
        """Whether images are under classifier-free guidance by a constant scale, whose factors can be learned."""
        denoiser = self.begun(range(1))
        if not isinstance(denoiser, Guided) or denoiser.method != CFG() or denoiser.interval != EVERYWHERE:
            return False
        return all(isinstance(w, float) for w in denoiser.weights) and any(w != 1 for w in denoiser.weights)

    def parts(self, numbers: Sequence[int]) -> list[Sequence[int]]:
        """The numbers in batches."""
        return [numbers[i : i + self.batch] for i in range(0, len(numbers), self.batch)]

    def errors(self, plan: Plan, images: Solutions) -> Tensor:
        """Mean squared distance of each image from its target, (B,), float64; infinite where an image is lost."""
        return squares(self.solve(plan, images.numbers), images.targets)

    def error(self, plan: Plan, images: Solutions) -> float:
        """The error of a plan on these images, by the objective."""
        return overall(self.errors(plan, images), self.objective)
