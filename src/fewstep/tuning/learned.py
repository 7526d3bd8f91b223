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
from fewstep.core.schedule import RATIO_CAP, Schedule
from fewstep.denoise.base import Denoiser, Level
from fewstep.denoise.guided import Guided
from fewstep.tuning.problem import LEAST_ERROR, Known, Problem
from fewstep.tuning.table import Table, plan_of, whole
from fewstep.tuning.teacher import Watched

RIDGE = 1e-4
"""Added to Gram matrices, as a share of their mean diagonal: directions in which outputs hardly differ stay still."""
LEAST_GAP = 1e-3
"""Of the mean gap of times in lambda: where learning starts from times that coincide."""
RATE, BETAS = 0.08, (0.9, 0.99)
"""Of Adam; the rate is a share of the error, as a unit step of a weight moves a state by as much as the data."""
SETBACK, PLATEAU = 1.25, 3
MEMORY = 2 << 30
"""Bytes of activations beyond which each row is computed again for its gradient, in place of being kept."""


class Levels(torch.autograd.Function):
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

    def __init__(self, table: Table, schedule: Schedule, outputs: Tensor, factors: Sequence[float] | None = None):
        """`outputs`: (N, B, ..), of the rows of `table` for some images; `factors`: where those of guidance start that
        are learned, but 0 stays 0: such a row is not guided.
        """
        n = len(outputs)
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
        gram = gram_of(outputs)
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

    def levels(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Times, alpha and sigma of the N inputs and the result; those of the first and the last are constant."""
        inner = self.low + self.span * torch.cumsum(torch.softmax(self.gaps, 0), 0)[:-1]
        columns = []
        ends = np.array([self.first, self.last])
        for values, end in zip(
            Levels.apply(inner, self.schedule),
            (ends, self.schedule.alpha(ends), self.schedule.sigma(ends)),
            strict=True,
        ):
            start, stop = torch.from_numpy(end)
            columns.append([start, *values.unbind(), stop])
        return columns[0], columns[1], columns[2]

    def table(self) -> Table:
        """As it is now."""
        with torch.no_grad():
            times = np.array([float(t) for t in self.levels()[0]])
            return Table(times, self.weights().numpy())

    @property
    def learned(self) -> tuple[Tensor, ...]:
        """All that is learned."""
        return (self.gaps, self.shifts) if self.factors is None else (self.gaps, self.shifts, self.factors)

    @property
    def by_row(self) -> tuple[float, ...] | None:
        """The factors as they are now."""
        if self.factors is None:
            return None
        return tuple(r if guided else 0.0 for r, guided in zip(self.factors.tolist(), self.guided, strict=True))

    def run(self, denoiser: Denoiser, x: Tensor, first: Tensor, again: bool, slope: Tensor | None = None) -> Tensor:
        """The result from the start `x` (B, ..), with gradients.

        Args:
            first: the output of the first row, whose input never changes.
            slope: of `first` in the factor of its row, where factors are learned.
            again: compute rows again for their gradient, in place of keeping their activations.
        """
        times, alphas, sigmas = self.levels()
        weights = self.weights()
        n = len(self.gaps)
        by_row: Sequence[Tensor | float | None] = [None] * n
        outputs = [first]
        if self.factors is not None and slope is not None:
            by_row = [r if guided else 0.0 for r, guided in zip(self.factors.unbind(), self.guided, strict=True)]
            outputs = [first + torch.as_tensor(by_row[0] - 1).to(x) * slope]
        for i in range(n):
            share = sigmas[i + 1] / sigmas[0]
            factors = (alphas[i + 1] - alphas[0] * share) * weights[i, : i + 1]
            state = share.to(x) * x
            for factor, output in zip(factors.to(x).unbind(), outputs, strict=True):
                state = state + factor * output
            if i + 1 == n:
                return state
            level = (times[i + 1], alphas[i + 1], sigmas[i + 1])
            if again:
                row = checkpoint(estimate, denoiser, state, *level, i + 1, by_row[i + 1], use_reentrant=False)
            else:
                row = estimate(denoiser, state, *level, i + 1, by_row[i + 1])
            outputs.append(row)
        raise AssertionError("a table has a row at least")


def estimate(
    denoiser: Denoiser,
    x: Tensor,
    t: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    row: int,
    factor: Tensor | float | None = None,
) -> Tensor:
    """The estimate of the data at a level whose three numbers may carry gradients, as may the factor of guidance; the
    number 0 is no guidance, at one evaluation.
    """
    shape = (x.shape[0],) + (1,) * (x.ndim - 1)
    host = [(t.item(), alpha.item(), sigma.item())]
    level = Level(t.to(x).expand(x.shape[0]), alpha.to(x).expand(shape), sigma.to(x).expand(shape), host, (row,))
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


class Learned(NamedTuple):
    """The best plan on the validation images, its error there, and after how many of the `iterations` it came."""

    plan: Plan
    error: float
    best: int
    iterations: int


def learn(
    problem: Problem,
    table: Table,
    train: Known,
    validation: Known,
    *,
    iterations: int,
    tuned_for: TunedFor | None = None,
    batch: int = 32,
    rate: float = RATE,
    every: int = 25,
    patience: int = 12,
    seed: int = 0,
    factors: Sequence[float] | None = None,
    seconds: Callable[[], float] = lambda: math.inf,
    watch: Callable[[int, int, Learned], None] = lambda done, of, best: None,
) -> Learned:
    """Learn from `table` by Adam, with a rate that falls along a cosine, and with the error itself.

    Where a look finds the error a quarter above the best, or the third one in a row finds none better, it goes back to
    the best, and halves the rate.

    Args:
        iterations: at most; fewer where `seconds`, asked for what is left, allow only so many.
        tuned_for: what the plan says that it is for.
        batch: training images of one iteration.
        rate: first step of each coordinate, as a share of the error; a unit shift moves a state by as much as the data.
        every: iterations between looks at the validation images; it ends after `patience` looks without a better one.
        factors: learn those of guidance from these, (N,); 0 stays 0, no guidance. The problem is `guided`.
        watch: told at each look the iterations done, of how many, and the best so far.

    Where the table itself makes no finite images, nothing is learned.
    """
    outputs = first_outputs(problem, table, train.numbers, factors)
    parameters = Parameters(table, problem.schedule, outputs, factors)
    again = too_large(problem, parameters, train.first(batch), outputs[0])
    starts = problem.noise(train.numbers) * float(problem.schedule.sigma(table.times[0]))
    known = factors is None or factors[0] != 0
    first = outputs[0] if known else opening(problem, table, train.numbers, guided=True)
    slopes = None if factors is None else first - opening(problem, table, train.numbers, guided=False)
    learned = parameters.learned
    optimiser = torch.optim.Adam(learned, betas=BETAS)
    order = torch.Generator().manual_seed(seed)
    best, kept = Learned(plan_of(table, problem.schedule, tuned_for), math.inf, 0, 0), learned
    scale = float(train.targets.double().std()) or 1.0
    total, began = iterations, seconds()
    for done in count():
        if done % every == 0 or done >= total:
            plan = plan_of(parameters.table(), problem.schedule, tuned_for, parameters.by_row)
            error = problem.error(plan, validation)
            if error < best.error:
                best, kept = Learned(plan, error, done, done), tuple(tensor.detach().clone() for tensor in learned)
            elif not error <= SETBACK * best.error or (done - best.best) % (PLATEAU * every) == 0:
                rate /= 2
                with torch.no_grad():
                    for tensor, good in zip(learned, kept, strict=True):
                        tensor.copy_(good)
            watch(done, total, best)
            stale = (done - best.best) // every >= patience
            if done >= total or stale or seconds() <= 0 or best.error == math.inf:
                return best._replace(iterations=done)
            if done in (every, 4 * every) and began < math.inf:  # now it is known how long an iteration takes
                total = max(done, min(total, int(began * done / max(began - seconds(), 1e-9))))
        chosen = torch.randperm(len(train.numbers), generator=order)[:batch].tolist()
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, best.error / scale) * 0.5 * (1 + math.cos(math.pi * done / total))
        denoiser = problem.begun([train.numbers[i] for i in chosen])
        slope = None if slopes is None else slopes[chosen]
        result = parameters.run(denoiser, starts[chosen], first[chosen], again, slope)
        squared = (result.double() - train.targets[chosen].double()).square().flatten(1).mean(dim=1)
        by_image = problem.objective == "psnr"
        loss = squared.clamp(min=LEAST_ERROR).log().mean() if by_image else squared.mean().log()
        gradients = torch.autograd.grad(loss, learned)  # of no network's weights
        for tensor, gradient in zip(learned, gradients, strict=True):
            tensor.grad = gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        optimiser.step()
    raise AssertionError


def first_outputs(
    problem: Problem, table: Table, numbers: Sequence[int], factors: Sequence[float] | None = None
) -> Tensor:
    """(N, B, ..), what the rows of `table` answer for these images, without guidance where the factor of a row is 0."""
    watched: list[Watched] = []

    def around(denoiser: Denoiser) -> Denoiser:
        watched.append(Watched(denoiser))
        return watched[-1]

    some = factors is not None and 0 in factors
    guided = [float(r != 0) for r in factors] if factors is not None and some else None
    plan = plan_of(table, problem.schedule, factors=guided)
    problem.solve(plan, numbers, around)
    return torch.stack([torch.cat([one.data[i] for one in watched]) for i in range(len(plan.rows))])


def opening(problem: Problem, table: Table, numbers: Sequence[int], guided: bool) -> Tensor:
    """(B, ..), what the first row of `table` answers for these images, guided or by the conditional model alone."""
    start, schedule = float(table.times[0]), problem.schedule
    t, alpha, sigma = (
        torch.tensor(float(v), dtype=torch.float64) for v in (start, schedule.alpha(start), schedule.sigma(start))
    )
    found = []
    with torch.no_grad():
        for part in problem.parts(numbers):
            x = problem.noise(part) * float(sigma)
            found.append(estimate(problem.begun(part), x, t, alpha, sigma, 0, None if guided else 0.0))
    return torch.cat(found)


def too_large(problem: Problem, parameters: Parameters, images: Known, first: Tensor) -> bool:
    """Whether the activations of all rows would take more than MEMORY: those of one are made, and counted."""
    if len(parameters.gaps) < 2:
        return False
    kept: dict[int, int] = {}

    def count_bytes(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    t, alpha, sigma = (column[1] for column in parameters.levels())
    x = problem.noise(images.numbers) * float(parameters.schedule.sigma(parameters.first))
    with torch.autograd.graph.saved_tensors_hooks(count_bytes, lambda tensor: tensor):
        estimate(problem.begun(images.numbers), x.requires_grad_(), t, alpha, sigma, 1)
    return sum(kept.values()) * (len(parameters.gaps) - 1) > MEMORY
