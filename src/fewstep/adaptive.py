"""Adaptive step size: the curvature of the solution decides where the evaluations go, and the run leaves a plan.

Each step is taken twice from shared evaluations: by DPM-Solver++(3S), and by DPM-Solver++(2S) with the same first
inner row, which is embedded in it (Lu et al. 2022, arXiv 2206.00927, section 3.4, in data prediction). Their
difference estimates the error. A PI controller (Hairer, Norsett, Wanner 1993, II.4) turns it into the next width in
lambda; a step with too large an error is rejected and made again. The accepted times compile to an ordinary plan,
which replays the run at its accepted cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, positive
from fewstep.core.plan import Plan
from fewstep.core.schedule import RATIO_CAP, Schedule
from fewstep.denoise.base import Denoiser, as_denoiser
from fewstep.run.eager import NonFinite, run_rows, starting_states
from fewstep.solvers.compiler import compile

EMBEDDED_R1 = 1 / 3
SAFETY, SHRINK, GROW = 0.9, 0.2, 5.0
P_GAIN, I_GAIN = 0.4 / 3, 0.7 / 3
"""Exponents of the last two errors for a method of local order 3: 0.4 / k and 0.7 / k, as in the reference."""


class Adaptive(NamedTuple):
    """What an adaptive run gives.

    Attributes:
        sample: the states at the end, (B, ..).
        plan: of the accepted steps; `fewstep.sample(plan, ..)` from the same start gives `sample` again.
        nfe: network evaluations that an image took, rejected steps included.
        rejected: how many steps were rejected.
    """

    sample: Tensor
    plan: Plan
    nfe: int
    rejected: int


def sample_adaptive(
    denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor],
    *,
    schedule: Schedule | None = None,
    shape: Sequence[int] | None = None,
    noise: Tensor | None = None,
    start: Tensor | None = None,
    seed: int | Sequence[int] = 0,
    device: torch.device | str | None = None,
    rtol: float = 0.05,
    atol: float = 0.0078,
    first_width: float = 0.05,
    max_evaluations: int = 3000,
) -> Adaptive:
    """Sample with steps as wide as the tolerances allow, from the schedule's noisiest time to clean data.

    A step is accepted if the root mean square, over all values of the worst image, of the difference of the two orders
    divided by atol + rtol |x| is at most 1. The last step, from `schedule.t_min` to clean, is of first order.

    Args:
        schedule: of a denoiser that does not know its own.
        shape, noise, start, seed, device: as for `fewstep.sample`.
        rtol, atol: above 0, relative to the values of x and absolute. The defaults are those of the paper for images
            in [-1, 1].
        first_width: width of the first trial step in lambda.
        max_evaluations: give up beyond this many.

    Raises:
        InvalidInput: for tolerances that are not above zero, or where `max_evaluations` are not enough.
        NonFinite: where the network returns NaN or infinity.
    """
    denoiser = as_denoiser(denoiser)
    if denoiser.needs_run:
        raise InvalidInput(
            f"{type(denoiser).__name__} counts or remembers the rows of a plan, which adaptive steps do not have: some "
            "are made again. Use fewstep.sample, or weights of sigma / alpha without momentum"
        )
    schedule = schedule or denoiser.schedule
    if schedule is None:
        raise InvalidInput("this denoiser does not know its noise schedule: give schedule=")
    rtol, atol, width = positive("rtol", rtol), positive("atol", atol), positive("first_width", first_width)

    # lambda is infinite where alpha is 0: a first step of first order leaves that point.
    first = schedule.t_max
    times = [float(first)]
    if schedule.alpha(first) == 0:
        times.append(float(schedule.time_of_lambda(-math.log(RATIO_CAP))))
    leaves = len(times) > 1
    opening = compile("dpmpp-1", schedule=schedule, times=[first, times[-1] if leaves else schedule.t_min])
    (x,), seeds = starting_states(opening, denoiser, shape=shape, noise=noise, start=start, seed=seed, device=device)
    nfe = 0
    rejected = 0
    with torch.no_grad():
        if leaves:
            (x,) = run_rows(opening, denoiser, [x], seeds)
            nfe = 1
        end = float(schedule.lam(schedule.t_min))
        last_error = 1.0
        while (position := float(schedule.lam(times[-1]))) < end:
            if nfe + 3 > max_evaluations:
                raise InvalidInput(
                    f"{max_evaluations} evaluations did not reach the end at rtol {rtol:g}, atol {atol:g}: lambda is "
                    f"at {position:.3g} of {end:.3g}. Loosen the tolerances or raise max_evaluations"
                )
            # What would be left over as a sliver is part of this step.
            arrives = position + 1.001 * width >= end
            target = schedule.t_min if arrives else float(schedule.time_of_lambda(position + width))
            pair = [times[-1], target]
            low = compile("dpmpp-2s", schedule=schedule, times=pair, r1=EMBEDDED_R1)
            high = compile("dpmpp-3s", schedule=schedule, times=pair, r1=EMBEDDED_R1)
            better, worse = _both(low, high, denoiser, x, seeds)
            nfe += len(high.rows)
            error = _error(better, worse, x, rtol, atol)
            if not math.isfinite(error):
                raise NonFinite(
                    f"the network returned NaN or infinity between time {pair[0]:g} and {pair[1]:g}",
                    None,
                    f"step {len(times)}",
                    list(range(x.shape[0])),
                    x,
                )
            scaled = max(error, 1e-10)
            if error <= 1:
                x = better
                times.append(float(target))
                factor = SAFETY * scaled**-I_GAIN * last_error**P_GAIN
                last_error = scaled
            else:
                rejected += 1
                factor = SAFETY * scaled ** (-1 / 3)
            step = float(schedule.lam(target)) - position
            width = step * min(GROW, max(SHRINK, factor))
        times.append(float(schedule.t_clean))
        plan = compile("dpmpp-3s", schedule=schedule, times=times, r1=EMBEDDED_R1)
        closing = compile("dpmpp-1", schedule=schedule, times=times[-2:])
        (x,) = run_rows(closing, denoiser, [x], seeds)
    return Adaptive(x, plan, nfe + 1, rejected)


def _both(low: Plan, high: Plan, denoiser: Denoiser, x: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The results of both orders. The low one runs on the high one's first two estimates, so it costs nothing."""
    estimates: list[Tensor] = []
    better = run_rows(high, denoiser, [x], seeds, lambda progress: estimates.append(progress.data().clone()))[0]
    replay = iter(estimates)
    return better, run_rows(low, as_denoiser(lambda u, t: next(replay)), [x], seeds)[0]


def _error(better: Tensor, worse: Tensor, x: Tensor, rtol: float, atol: float) -> float:
    """Root mean square of the scaled difference, of the worst image."""
    scale = atol + rtol * torch.maximum(better.abs(), x.abs())
    return float(((better - worse) / scale).square().flatten(1).mean(dim=1).sqrt().max())
