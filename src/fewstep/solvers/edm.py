"""Samplers that go back up in noise between steps of the probability-flow ODE: EDM's churn, and Restart.

Both add exactly the noise that leads from one level of the schedule to a noisier one,

    x_up = (alpha_up / alpha_p) x_p + sqrt(sigma_up^2 - (alpha_up sigma_p / alpha_p)^2) z,

and both integrate in x / alpha over ratio = sigma / alpha, so that the formulas of Karras et al. hold for every
schedule.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

from fewstep.core.errors import InvalidInput, not_negative
from fewstep.core.tape import Point, State, Tape, transfer
from fewstep.solvers.exponential import advance, has_inside


def renoised(tape: Tape, x: State, p: Point, up: Point, s_noise: float = 1.0) -> State:
    """`x` of level p with the noise added that makes it one of the noisier level `up`."""
    scale = up.alpha / p.alpha
    added = math.sqrt(max(0.0, up.sigma**2 - (scale * p.sigma) ** 2))
    return scale * x + added * s_noise * tape.noise(p, up)


def ode_step(tape: Tape, x: State, p: Point, q: Point, method: str) -> State:
    """One step of the ODE: Euler, Heun (arXiv 2206.00364, algorithm 1), or DPM-2 with its middle halfway in log ratio.

    Heun's slopes are (x - x0) / ratio at p and at q: Euler's step plus (ratio_p / ratio_q - 1) / 2 (x0_q - x0_p). A
    step to sigma = 0, from alpha = 0, or wider than `WIDEST` is Euler's: the second slope would be weighted by half of
    that ratio.
    """
    if method == "euler" or not has_inside(p, q, "noise"):
        return transfer(x, tape.evaluate(x, p), p, q)
    if method == "dpm2":
        return advance(tape, x, p, q, [tape.point_at_lambda((p.lam + q.lam) / 2)], "noise")
    data = tape.evaluate(x, p)
    euler = transfer(x, data, p, q)
    weight = q.alpha * (p.ratio / q.ratio - 1) / 2
    base = tape.keep(euler - weight * data)
    return base + weight * tape.evaluate(euler, q)


def edm(
    tape: Tape,
    *,
    method: Literal["heun", "euler", "dpm2"] = "heun",
    s_churn: float = 5.0,
    s_tmin: float = 0.05,
    s_tmax: float = 50.0,
    s_noise: float = 1.0,
) -> State:
    """EDM's stochastic sampler: Karras et al. 2022, arXiv 2206.00364, algorithm 2, by Heun's, Euler's or DPM-2's step.

    Before a step from a ratio in [s_tmin, s_tmax], noise raises the ratio by the factor 1 + min(s_churn / N, sqrt(2)
    - 1), though never beyond the schedule's noisiest level. The paper's setting for ImageNet is s_churn=40 at 256
    steps and s_noise=1.003 on this interval; fewer steps want less churn, and s_noise other than 1 departs from the
    schedule's marginals. k-diffusion's defaults are s_churn=0 and no limits.
    """
    not_negative(s_churn=s_churn, s_noise=s_noise, s_tmin=s_tmin, s_tmax=s_tmax)
    if s_tmin > s_tmax:
        raise InvalidInput(f"give s_tmin not above s_tmax, got s_tmin={s_tmin} and s_tmax={s_tmax}")
    gamma = min(s_churn / (len(tape.points) - 1), math.sqrt(2) - 1)
    x = tape.start()
    for p, q in tape.steps():
        up = p
        if gamma > 0 and s_tmin <= p.ratio <= s_tmax and p.t < tape.schedule.t_max:
            up = at_ratio(tape, p.ratio * (1 + gamma))
            x = renoised(tape, x, p, up, s_noise)
            if s_noise != 1:
                tape.inexact = f"s_noise = {s_noise:g} scales the noise that is drawn"
        x = ode_step(tape, x, up, q, method)
    return x


def at_ratio(tape: Tape, ratio: float) -> Point:
    """The point where sigma / alpha is `ratio`, or the noisiest where that is beyond the schedule."""
    noisiest = tape.point(tape.schedule.t_max)
    return noisiest if ratio >= noisiest.ratio else tape.point_at_lambda(-math.log(ratio))


def restart(
    tape: Tape,
    *,
    restart_min: float = 0.1,
    restart_max: float = 2.0,
    restarts: int = 1,
    restart_steps: int | None = None,
) -> State:
    """Restart: Xu et al. 2023, arXiv 2306.14878, algorithm 1. Heun's method, which goes back up near `restart_min`.

    The restart happens at the last time of the grid, after its first, whose ratio lies in [restart_min, restart_max):
    noise raises it to `restart_max` (or the schedule's noisiest), and `restart_steps` steps lead down again, spaced as
    EDM's (rho = 7 in ratio). This is done `restarts` times. `restart_steps` None means as many as the grid has in the
    interval. A grid without a time there is not restarted: the plan is then that of "edm" without churn. The default
    interval is the authors' for Stable Diffusion, where they restart twice with 9 steps; for CIFAR-10 at few
    evaluations they use 0.06 to 0.3 with 2 steps.
    """
    if not 0 < restart_min < restart_max < math.inf:
        raise InvalidInput(
            f"the restart interval must satisfy 0 < restart_min < restart_max, got {restart_min} and {restart_max}"
        )
    each = 1 if restart_steps is None else restart_steps
    if not (1 <= restarts <= 1000 and 1 <= each <= 1000 and restarts * each <= 10_000):
        raise InvalidInput(
            "the product of restarts and restart_steps must be at most 10000, and each in 1 .. 1000, got "
            f"restarts={restarts}, restart_steps={restart_steps}"
        )
    top = at_ratio(tape, restart_max)
    inside = [p for p in tape.points[1:] if restart_min * (1 - 1e-9) <= p.ratio < top.ratio]
    x = tape.start()
    for p, q in tape.steps():
        x = ode_step(tape, x, p, q, "heun")
        if q in inside[-1:]:
            n = restart_steps or len(inside)
            low, high = q.ratio ** (1 / 7), top.ratio ** (1 / 7)
            middle = [at_ratio(tape, (high + j / n * (low - high)) ** 7) for j in range(1, n)]
            for _ in range(restarts):
                x = renoised(tape, x, q, top)
                for a, b in pairwise([top, *middle, q]):
                    x = ode_step(tape, x, a, b, "heun")
    return x
