"""Plans learned by gradient: the times and weights of a `Table` that bring its result nearest to the converged one,
and under guidance the factor by which each row takes it further or less far.

Times are a softmax of gaps, summed up in lambda, so that they always decrease. The weights of a state are those of
successive differences of the outputs,

    sum_j w_j D_j = D_i - sum_{j<i} c_j (D_{j+1} - D_j),      c_j = w_0 + .. + w_j

which sum to one whatever c is: the marginals hold by construction. Outputs of neighbouring rows are much alike, and
Adam scales coordinates one by one, so c is learned in the basis in which the differences are uncorrelated and of unit
size (their Gram matrix is measured once). Loss: the log of the mean squared distance to the converged solution, of all
images together or, by the objective "psnr", of each.

Learned times and coefficients as in Tong et al. 2024 (LD3, arXiv 2405.15506), Shaul et al. 2024 (arXiv 2403.01329)
and Frankel et al. 2025 (S4S, arXiv 2502.17423).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fewstep.core.plan import Plan, TunedFor
from fewstep.core.schedule import RATIO_CAP, Float, Schedule
from fewstep.denoise.base import Denoiser, Level
from fewstep.denoise.guided import Guided
from fewstep.measure.distance import LEAST_ERROR
from fewstep.tuning.problem import Problem, Solutions
from fewstep.tuning.table import Table, plan_of, table_of, whole
from fewstep.tuning.teacher import watched_run

RIDGE = 1e-4
"""Added to Gram matrices, as a share of their mean diagonal: directions in which outputs hardly differ stay still."""
LEAST_GAP = 1e-3
"""Of the mean gap of times in lambda: where learning starts from times that coincide."""
RATE, BETAS = 0.08, (0.9, 0.99)
"""Of Adam; the rate is a share of the error, as a unit step of a weight moves a state by as much as the data."""
SETBACK, PLATEAU = 1.25, 3
MEMORY = 2 << 30
"""Bytes of activations beyond which each row is computed again for its gradient, in place of being kept."""


class LearnedPoint(NamedTuple):
    """A time with its alpha and sigma, float64 on the host; each may carry a gradient."""

    t: Tensor
    alpha: Tensor
    sigma: Tensor


def points_at(schedule: Schedule, times: Float) -> list[LearnedPoint]:
    """The points at some times (n,)."""
    columns = (times, schedule.alpha(times), schedule.sigma(times))
    return [LearnedPoint(*row) for row in zip(*(torch.from_numpy(v).double() for v in columns), strict=True)]


class LevelsAtLambda(torch.autograd.Function):
    """(t, alpha, sigma) at values of lambda (n,), float64, with the schedule's own derivatives."""

    @staticmethod
    def forward(ctx: Any, lam: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor, Tensor]:
        t = schedule.time_of_lambda(lam.detach().numpy())
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        dalpha, dsigma = schedule.derivatives(t)
        slope = 1 / (dalpha / alpha - dsigma / sigma)  # dt / dlambda
        ctx.save_for_backward(*(torch.from_numpy(v * slope) for v in (np.ones_like(t), dalpha, dsigma)))
        return torch.from_numpy(t), torch.from_numpy(alpha), torch.from_numpy(sigma)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return sum((g * s for g, s in zip(gradients, ctx.saved_tensors, strict=True)), torch.zeros(1)), None


def lambda_of(schedule: Schedule, t: float) -> float:
    """lambda at `t`; where alpha is 0, that of RATIO_CAP."""
    return max(float(schedule.lam(t)), -math.log(RATIO_CAP))


class Parameters:
    """What is learned, `gaps` (N,), `shifts` (N, N) and maybe `factors` (N,), and the table that it stands for."""

    def __init__(self, table: Table, schedule: Schedule, gram: Tensor, factors: Sequence[float] | None = None):
        """`gram`: `gram_of` what the rows of `table` answer for some images; `factors`: where those of guidance start
        that are learned, but 0 stays 0: such a row is not guided.
        """
        n = len(table.times) - 1
        self.factors = None if factors is None else torch.tensor(factors, dtype=torch.float64, requires_grad=True)
        self.guided = [True] * n if factors is None else [r != 0 for r in factors]
        self.schedule, self.first, self.last = schedule, float(table.times[0]), float(table.times[-1])
        self.low = lambda_of(schedule, self.first)
        self.span = lambda_of(schedule, max(self.last, schedule.t_min)) - self.low
        inner = [lambda_of(schedule, t) for t in table.times[1:-1]]
        gaps = np.maximum(np.diff([self.low, *inner, self.low + self.span]), LEAST_GAP * self.span / n)
        self.gaps = torch.tensor(np.log(gaps), requires_grad=True)
        self.basis = torch.zeros(n, n, n, dtype=torch.float64)
        shifts = torch.zeros(n, n, dtype=torch.float64)
        sums = torch.tensor(np.cumsum(whole(table.weights), axis=1))
        for i in range(1, n):
            root = torch.linalg.cholesky(ridged(gram[:i, :i]))
            self.basis[i, :i, :i] = torch.linalg.inv(root).mT
            shifts[i, :i] = root.mT @ sums[i, :i]
        self.shifts = shifts.requires_grad_()
        self.differences = torch.eye(n, dtype=torch.float64)[:-1] - torch.eye(n, dtype=torch.float64)[1:]

    def weights(self) -> Tensor:
        """(N, N), as `Table.weights`."""
        sums = torch.einsum("ijk,ik->ij", self.basis, self.shifts)
        return torch.eye(len(self.gaps), dtype=torch.float64) + sums[:, :-1] @ self.differences

    def points(self) -> list[LearnedPoint]:
        """Of the N inputs and the result; those of the first and the last are constant."""
        inner = self.low + self.span * torch.cumsum(torch.softmax(self.gaps, 0), 0)[:-1]
        first, last = points_at(self.schedule, np.array([self.first, self.last]))
        return [first, *map(LearnedPoint, *LevelsAtLambda.apply(inner, self.schedule)), last]

    def table(self) -> Table:
        """As it is now."""
        with torch.no_grad():
            return Table(np.array([float(point.t) for point in self.points()]), self.weights().numpy())

    @property
    def learned(self) -> tuple[Tensor, ...]:
        """All that is learned."""
        return (self.gaps, self.shifts) if self.factors is None else (self.gaps, self.shifts, self.factors)

    @property
    def by_row(self) -> list[Any]:
        """The factor of each row: a number that is learned, 0.0 where it is not guided, None where none is learned."""
        if self.factors is None:
            return [None] * len(self.gaps)
        return [r if guided else 0.0 for r, guided in zip(self.factors.unbind(), self.guided, strict=True)]

    def plan(self, tuned_for: TunedFor | None = None) -> Plan:
        """The plan as it is now. Raises `InvalidInput` as `plan_of`."""
        factors = None if self.factors is None else [torch.as_tensor(r).item() for r in self.by_row]
        return plan_of(self.table(), self.schedule, tuned_for, factors)

    def run(self, denoiser: Denoiser, x: Tensor, first: Tensor, again: bool, slope: Tensor | None = None) -> Tensor:
        """The result from the start `x` (B, ..), with gradients.

        Args:
            first: the output of the first row, whose input never changes.
            slope: of `first` in the factor of its row, where factors are learned.
            again: compute rows again for their gradient, in place of keeping their activations.
        """
        (start, *later), weights, by_row = self.points(), self.weights(), self.by_row
        outputs = [first if slope is None else first + torch.as_tensor(by_row[0] - 1).to(x) * slope]
        for i, (point, after) in enumerate(zip(later, [*later[1:], None], strict=True)):
            share = point.sigma / start.sigma
            factors = (point.alpha - start.alpha * share) * weights[i, : i + 1]
            state = share.to(x) * x
            for factor, output in zip(factors.to(x).unbind(), outputs, strict=True):
                state = state + factor * output
            if after is None:
                return state
            row = (denoiser, state, (point, after), i + 1, by_row[i + 1])
            outputs.append(checkpoint(estimate, *row, use_reentrant=False) if again else estimate(*row))
        raise AssertionError("a table has a row at least")


def estimate(
    denoiser: Denoiser,
    x: Tensor,
    way: tuple[LearnedPoint, LearnedPoint],
    row: int,
    factor: Tensor | float | None = None,
) -> Tensor:
    """The estimate of the data at the first point of the way of a row; the factor of guidance may carry a gradient, and
    the number 0 is no guidance, at one evaluation. Where the row ends is told without a gradient.
    """
    shape = (x.shape[0],) + (1,) * (x.ndim - 1)
    t, alpha, sigma = (value.to(x) for value in way[0])
    host, ends = ([(point.t.item(), point.alpha.item(), point.sigma.item())] for point in way)
    level = Level(t.expand(x.shape[0]), alpha.expand(shape), sigma.expand(shape), host, (row,), ends)
    if isinstance(denoiser, Guided) and isinstance(factor, Tensor):
        return denoiser.estimate_by(factor, x, level)
    if isinstance(denoiser, Guided) and factor == 0:
        skip, out = denoiser.coefficients_at(level)
        return skip * x + out * denoiser.alone(x, level)
    return denoiser.estimate(x, level)[0]


def gram_of(outputs: Tensor) -> Tensor:
    """(N - 1, N - 1), mean products of the successive differences of outputs (N, B, ..), float64."""
    flat = outputs.flatten(1).diff(dim=0).double()
    return (flat @ flat.mT / flat.shape[1]).cpu()


def ridged(gram: Tensor) -> Tensor:
    """`gram`, made safe to invert."""
    size = gram.diagonal().mean().clamp(min=1e-20)
    return gram + RIDGE * size * torch.eye(len(gram), dtype=gram.dtype)


class Start(NamedTuple):
    """A table, and the factors of guidance where they are learned; a row whose factor is 0 is not guided and stays so.
    Factors are learned of a problem that is `guided`.
    """

    table: Table
    factors: tuple[float, ...] | None = None

    @staticmethod
    def of(plan: Plan) -> Start | None:
        """The start that a learned plan is; None where it has no table, as far from any sampler as it may be."""
        table = table_of(plan)
        return None if table is None else Start(table, plan.guidance_factors)

    @property
    def guided(self) -> tuple[bool, ...]:
        """Which rows are guided, where that is learned."""
        return tuple(map(bool, self.factors or ()))

    def plan(self, schedule: Schedule, tuned_for: TunedFor | None = None) -> Plan:
        """As it is before learning. Raises `InvalidInput` as `plan_of`."""
        return plan_of(self.table, schedule, tuned_for, None if all(self.guided) else self.factors)


class Pace(NamedTuple):
    """How learning goes on.

    Attributes:
        iterations: at most; fewer where `seconds`, asked for what is left, allow only so many.
        batch: training images of one iteration, drawn with `seed`.
        rate: first step of each coordinate, as a share of the error; a unit shift moves a state by as much as the data.
        every: iterations between looks at the validation images; it ends after `patience` looks without a better one.
    """

    iterations: int
    batch: int = 32
    seed: int = 0
    seconds: Callable[[], float] = lambda: math.inf
    rate: float = RATE
    every: int = 25
    patience: int = 12


class Learned(NamedTuple):
    """The best plan on the validation images, its error there, and after how many of the `iterations` it came."""

    plan: Plan
    error: float
    best: int
    iterations: int


def learn(
    problem: Problem,
    start: Start,
    train: Solutions,
    validation: Solutions,
    pace: Pace,
    tuned_for: TunedFor | None = None,
    watch: Callable[[int, int, Learned], None] = lambda done, of, best: None,
) -> Learned:
    """Learn from `start` by Adam, with a rate that falls along a cosine, and with the error itself.

    Where a look finds the error a quarter above the best, or the third one in a row finds none better, it goes back to
    the best, and halves the rate.

    Args:
        tuned_for: what the plan says that it is for.
        watch: told at each look the iterations done, of how many, and the best so far.

    Where the start itself makes no finite images, nothing is learned.
    """
    lesson = _Lesson.of(problem, start, train, pace.batch)
    parameters, learned = lesson.parameters, lesson.parameters.learned
    optimiser = torch.optim.Adam(learned, betas=BETAS)
    order = torch.Generator().manual_seed(pace.seed)
    best, kept = Learned(plan_of(start.table, problem.schedule, tuned_for), math.inf, 0, 0), learned
    scale = float(train.targets.double().std()) or 1.0
    rate, total, began = pace.rate, pace.iterations, pace.seconds()
    for done in count():
        if done % pace.every == 0 or done >= total:
            plan = parameters.plan(tuned_for)
            error = problem.error(plan, validation)
            if error < best.error:
                best, kept = Learned(plan, error, done, done), tuple(tensor.detach().clone() for tensor in learned)
            elif not error <= SETBACK * best.error or (done - best.best) % (PLATEAU * pace.every) == 0:
                rate /= 2
                with torch.no_grad():
                    for tensor, good in zip(learned, kept, strict=True):
                        tensor.copy_(good)
            watch(done, total, best)
            stale = (done - best.best) // pace.every >= pace.patience
            if done >= total or stale or pace.seconds() <= 0 or best.error == math.inf:
                return best._replace(iterations=done)
            if done in (pace.every, 4 * pace.every) and began < math.inf:  # now an iteration's time is known
                total = max(done, min(total, int(began * done / max(began - pace.seconds(), 1e-9))))
        chosen = torch.randperm(len(train.numbers), generator=order)[: pace.batch].tolist()
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, best.error / scale) * 0.5 * (1 + math.cos(math.pi * done / total))
        gradients = torch.autograd.grad(lesson.loss(problem, train, chosen), learned)  # of no network's weights
        for tensor, gradient in zip(learned, gradients, strict=True):
            tensor.grad = gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        optimiser.step()
    raise AssertionError


class _Lesson(NamedTuple):
    """What learning computes once: for all training images the starts, what the first row answers, and its slope in the
    factor of guidance; and whether rows are computed `again` for their gradient.
    """

    parameters: Parameters
    starts: Tensor
    first: Tensor
    slopes: Tensor | None
    again: bool

    @staticmethod
    def of(problem: Problem, start: Start, train: Solutions, batch: int) -> _Lesson:
        table, factors = start
        outputs = first_outputs(problem, table, train.numbers, factors)
        parameters = Parameters(table, problem.schedule, gram_of(outputs), factors)
        again = too_large(problem, parameters, train.first(batch))
        starts = problem.noise(train.numbers) * float(problem.schedule.sigma(table.times[0]))
        known = factors is None or factors[0] != 0
        first = outputs[0] if known else opening(problem, table, train.numbers, guided=True)
        slopes = None if factors is None else first - opening(problem, table, train.numbers, guided=False)
        return _Lesson(parameters, starts, first, slopes, again)

    def loss(self, problem: Problem, train: Solutions, chosen: Sequence[int]) -> Tensor:
        """The log of the error of some training images, by the problem's objective."""
        denoiser = problem.begun([train.numbers[i] for i in chosen])
        slope = None if self.slopes is None else self.slopes[chosen]
        result = self.parameters.run(denoiser, self.starts[chosen], self.first[chosen], self.again, slope)
        squared = (result.double() - train.targets[chosen].double()).square().flatten(1).mean(dim=1)
        by_image = problem.objective == "psnr"
        return squared.clamp(min=LEAST_ERROR).log().mean() if by_image else squared.mean().log()


def first_outputs(
    problem: Problem, table: Table, numbers: Sequence[int], factors: Sequence[float] | None = None
) -> Tensor:
    """(N, B, ..), what the rows of `table` answer for these images, without guidance where the factor of a row is 0."""
    acting = [float(r != 0) for r in factors or ()]
    plan = plan_of(table, problem.schedule, factors=acting if 0 in acting else None)
    return watched_run(problem, plan, numbers)[1]


def opening(problem: Problem, table: Table, numbers: Sequence[int], guided: bool) -> Tensor:
    """(B, ..), what the first row of `table` answers for these images, guided or by the conditional model alone."""
    here, there = points_at(problem.schedule, table.times[:2])
    found = []
    with torch.no_grad():
        for part in problem.parts(numbers):
            x = problem.noise(part) * float(here.sigma)
            found.append(estimate(problem.begun(part), x, (here, there), 0, None if guided else 0.0))
    return torch.cat(found)


def too_large(problem: Problem, parameters: Parameters, images: Solutions) -> bool:
    """Whether the activations of all rows would take more than MEMORY: those of one are made, and counted."""
    if len(parameters.gaps) < 2:
        return False
    kept: dict[int, int] = {}

    def count_bytes(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    start, here, there = parameters.points()[:3]
    x = problem.noise(images.numbers) * float(start.sigma)
    with torch.autograd.graph.saved_tensors_hooks(count_bytes, lambda tensor: tensor):
        estimate(problem.begun(images.numbers), x.requires_grad_(), (here, there), 1)
    return sum(kept.values()) * (len(parameters.gaps) - 1) > MEMORY
