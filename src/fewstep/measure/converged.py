"""The converged solution: where the exact flow takes given noise, and how well that is known.

Samplers of third order double their steps until a doubling moves the images by less than is asked for; those that are
behind do not go on. That is reported
as the error of the solution: it is the error of half the steps, so it is more than that of the solution.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, positive
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser, as_denoiser
from fewstep.measure import stored
from fewstep.measure.counting import counted
from fewstep.measure.distance import overall, squares
from fewstep.run.eager import NonFinite, sample
from fewstep.run.noise import START, seeds_of, unit_noise
from fewstep.solvers.compiler import compile

KIND, FACTS = "converged solution", ("solver", "schedule", "model", "nfe")
FAMILIES = (("deis-3", "quadratic"), ("unipc-3", "quadratic"), ("unipc-3", "exponential"))
"""Samplers and grids of which one solves."""
FEWEST, MOST = 24, 384
"""Steps that doubling begins with, and ends with at most."""
NEAR = 2.0
"""A family goes on while its doubling moved the images by at most so many times as much as that of the best."""
LEAST_FINDING = 3 * FEWEST * len(FAMILIES)
"""Rows of an image that tell by how much one doubling of the fewest steps moves it."""

Model = Denoiser | Callable[[Tensor, Tensor], Tensor]
"""What is sampled from: a denoiser, or a callable `(x, t) -> x0`."""


@dataclass(frozen=True)
class Flow:
    """What is solved: a model with its noise schedule, and images that are named by numbers; `solve(plan, numbers)` is
    what a plan makes of their noise, (n, ..). `fewstep.tuning.Problem` has one.
    """

    solve: Callable[[Plan, Sequence[int]], Tensor]
    schedule: Schedule
    name: str = "the model"


@dataclass(frozen=True)
class Goal:
    """When a doubling of the steps is the last one.

    Attributes:
        tolerance: it moved the images by at most so much; where a plan is `judged`, by this share of that plan's error.
        steps: in place of a tolerance, the steps of the first of `FAMILIES`; half of them tell the error.
        most: steps at most. Where they do not reach the tolerance, the plan whose doubling moved the images least.
        objective: what an error is, see `fewstep.measure.distance`.
    """

    tolerance: float = 1e-4
    judged: Plan | None = None
    steps: int | None = None
    most: int = MOST
    objective: str = "rmse"

    def __post_init__(self) -> None:
        least = 2 * FEWEST if self.steps is None else 2
        if (self.steps or self.most) < least:
            raise InvalidInput(
                f"steps are doubled once at least, so give at least {least}, got {self.steps or self.most}"
            )

    @property
    def levels(self) -> list[int]:
        """The numbers of steps that are tried, one after the other."""
        if self.steps is not None:
            return [self.steps // 2, self.steps]
        return [FEWEST * 2**k for k in range((self.most // FEWEST).bit_length())]


@dataclass(frozen=True)
class ConvergedPlan:
    """A plan that solves.

    Attributes:
        error: by how much its last doubling of steps moved the images, by the goal's objective.
        rows: that it took to find, those of each image of a batch counted.
        states: (p, ..) what it makes of the images that it was found on; `moved`: (p,) their mean squares.
    """

    plan: Plan
    error: float
    rows: int
    states: Tensor = field(compare=False, repr=False)
    moved: Tensor = field(compare=False, repr=False)


def find_plan(
    flow: Flow,
    numbers: Sequence[int],
    goal: Goal,
    enough: Callable[[float], bool] = lambda more: False,
    clock: Callable[[], float] = time.perf_counter,
) -> ConvergedPlan:
    """The cheapest plan that reaches the `goal` on these images.

    After a doubling, `enough` is told how many seconds by `clock` the next one will take; True ends the search.

    Raises:
        InvalidInput: where not all images of any plan are finite.
    """
    best: ConvergedPlan | None = None
    last: dict[tuple[str, str], Tensor] = {}
    going = FAMILIES if goal.steps is None else FAMILIES[:1]
    judged = None if goal.judged is None else flow.solve(goal.judged, numbers)
    steps, rows = 0, 0 if goal.judged is None else len(goal.judged.rows) * len(numbers)
    for steps in goal.levels:
        began = clock()
        errors: dict[tuple[str, str], float] = {}
        for family in going:
            plan = compile(family[0], schedule=flow.schedule, steps=steps, grid=family[1])
            now = flow.solve(plan, numbers)
            rows += len(plan.rows) * len(numbers)
            if family in last:
                moved = squares(last[family], now)
                errors[family] = error = overall(moved, goal.objective)
                if best is None or error < best.error:
                    best = ConvergedPlan(plan, error, rows, now, moved)
            last[family] = now
        if best is None:
            continue
        spent, tried = clock() - began, len(going)
        going = tuple(one for one in going if errors[one] <= NEAR * min(errors.values())) or going
        usual = 1.0 if judged is None else overall(squares(judged, best.states), goal.objective)
        if best.error < torch.inf and best.error <= goal.tolerance * usual:
            break
        if enough(2 * spent * len(going) / tried):
            break
    if best is None or not best.error < torch.inf:
        raise InvalidInput(f"{flow.name} gives no finite images in {steps} steps: try `fewstep doctor`")
    return replace(best, rows=rows)


@dataclass(frozen=True, eq=False)
class Converged:
    """Where the exact flow takes the noise of some images, to measure many plans against.

    Attributes:
        solution: (n, ..) states, in the order of the images.
        error: (p,) root mean square by which the last doubling of steps moved each of the first p images, float64: it
            bounds the solution's own error.
        solver: sampler, grid and steps of the plan that solved, and the rows that it took to find.
        schedule: fingerprint of the noise schedule.
        model: what the caller names the model and its images by, a digest above all; may be empty.
        noise: unit noise (n, ..), where the caller does not keep it; `nfe`: network evaluations of an image that all
            took, guidance counted. Both are of `solve`.
    """

    solution: Tensor
    error: Tensor
    solver: Mapping[str, Any]
    schedule: str
    model: str = ""
    noise: Tensor | None = None
    nfe: float | None = None

    @staticmethod
    def solve(
        denoiser: Model,
        noise: Tensor | Sequence[int],
        *,
        seed: int | Sequence[int] = 0,
        device: torch.device | str | None = None,
        schedule: Schedule | None = None,
        tolerance: float = 1e-4,
        most: int = MOST,
        model: str = "",
    ) -> Converged:
        """Solve from the noise of one batch.

        Args:
            denoiser: any that `fewstep.sample` takes.
            noise: unit noise (B, ..), or its shape: then it is what `fewstep.sample` draws from `seed` on `device`. In
                float64 the solve goes below float32's rounding.
            schedule: the denoiser's own where it has one.
            tolerance: by how much the last doubling of steps may move the images, root mean square.
            most: steps at most.
            model: names the model, such as its digest; `trajectory_error` compares it where both sides are named.

        Raises:
            InvalidInput: for a tolerance that `most` steps do not reach, or a model that gives no finite images.
        """
        own, count = counted(as_denoiser(denoiser))
        schedule = schedule or as_denoiser(denoiser).schedule
        if schedule is None:
            raise InvalidInput("this denoiser does not know its noise schedule: give schedule=")
        z = noise_of(noise, seed, device)

        def draw(plan: Plan, numbers: Sequence[int]) -> Tensor:
            try:
                return sample(plan, own, noise=z)
            except NonFinite as lost:
                return lost.result

        goal = Goal(positive("tolerance", tolerance), most=most)
        found = converge(Flow(draw, schedule), range(len(z)), goal, model=model)
        if found.bound > tolerance:
            raise InvalidInput(
                f"the images still moved by {found.bound:.2g} when the steps were doubled to {found.solver['steps']}: "
                f"loosen the tolerance of {tolerance:g}, give more than {most} steps, or noise in float64"
            )
        return replace(found, solution=found.solution.to(z.device), noise=z, nfe=count.images / len(z))

    def __len__(self) -> int:
        return len(self.solution)

    @property
    def bound(self) -> float:
        """The root mean square of `error`."""
        return float(self.error.square().mean().sqrt())

    @property
    def variance(self) -> float:
        """The mean over values of their variance over images."""
        return float(self.solution.double().var(dim=0).mean())

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over the model's name, the noise schedule, the solver, the noise and the solution."""
        facts = (self.model, self.schedule, tuple(self.solution.shape), sorted(self.solver.items()))
        state = hashlib.sha256(repr(facts).encode())
        for tensor in self._tensors.values():
            state.update(tensor.detach().cpu().double().contiguous().numpy().tobytes())
        return state.hexdigest()[:16]

    @property
    def _tensors(self) -> dict[str, Tensor]:
        own = {"solution": self.solution, "error": self.error}
        return own if self.noise is None else {**own, "noise": self.noise}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, whole or not at all, so that a bench of many plans solves once."""
        facts = {key: getattr(self, key) for key in FACTS}
        stored.write(path, KIND, self._tensors, {**facts, "digest": self.digest})

    @staticmethod
    def load(path: str | os.PathLike[str], model: str = "", device: torch.device | str | None = None) -> Converged:
        """Read a file of `save`. Raises `InvalidInput` where it is none, is of another `model`, or was changed."""
        tensors, document = stored.read(path, KIND, ("solution", "error"), (*FACTS, "digest"))
        try:
            placed = {name: tensor.to(device) for name, tensor in tensors.items()}
            found = Converged(**placed, **{key: document[key] for key in FACTS})
            sound = found.digest == document["digest"]
        except (TypeError, AttributeError) as error:
            raise InvalidInput(f"{path} is damaged ({error}): make it again") from error
        if not sound:
            raise InvalidInput(f"{path} was changed since it was written: its digest does not fit. Make it again")
        if model and found.model != model:
            raise InvalidInput(f"{path} was solved for {found.model!r}, this is {model!r}: make it again")
        return found


def converge(
    flow: Flow,
    numbers: Sequence[int],
    goal: Goal,
    *,
    pilots: int | None = None,
    batch: int | None = None,
    model: str = "",
    watch: Callable[[int, int], None] = lambda done, of: None,
) -> Converged:
    """Find the plan that solves on the first `pilots` images, all for None, and solve the others with it.

    `watch` is told how many batches are done, of how many; finding is one. The solution is on the host.

    Raises:
        InvalidInput: where the model gives no finite images.
    """
    first = len(numbers) if pilots is None else min(pilots, len(numbers))
    size = batch or len(numbers)
    parts = [] if first == len(numbers) else [numbers[i : i + size] for i in range(0, len(numbers), size)]
    watch(0, len(parts) + 1)
    found = find_plan(flow, numbers[:first], goal)
    solved = [] if parts else [found.states.cpu()]
    for done, part in enumerate(parts, 1):
        watch(done, len(parts) + 1)
        solved.append(flow.solve(found.plan, part).cpu())
    solution = torch.cat(solved)
    if not bool(solution.isfinite().all()):
        raise InvalidInput(f"the converged images of {flow.name} are not all finite: try `fewstep doctor`")
    recipe = found.plan.recipe
    solver = {"sampler": recipe.sampler, "grid": recipe.grid, "steps": recipe.steps, "rows": found.rows}
    return Converged(solution, found.moved.sqrt().cpu(), solver, flow.schedule.fingerprint, model)


def noise_of(noise: Tensor | Sequence[int], seed: int | Sequence[int], device: torch.device | str | None) -> Tensor:
    """Unit noise (B, ..), as it is given or drawn in a shape."""
    if isinstance(noise, Tensor):
        if noise.ndim < 2 or not len(noise) or not noise.is_floating_point():
            raise InvalidInput(f"noise is a floating point tensor (batch, ..), got {noise.dtype} {tuple(noise.shape)}")
        return noise
    sizes = tuple(noise)
    if len(sizes) < 2 or not all(type(size) is int and size > 0 for size in sizes):
        raise InvalidInput(f"noise is a tensor, or its shape (batch, ..) of positive sizes, got {noise!r}")
    return unit_noise(seeds_of(seed, sizes[0]), START, torch.empty(sizes, device=device))
