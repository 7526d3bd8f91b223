"""Samplers for distilled students, each of whose evaluations aims at the data: consistency models, LCM and TCD."""

from __future__ import annotations

import math

from fewstep.core.errors import InvalidInput, not_negative, positive
from fewstep.core.schedule import BetaSchedule
from fewstep.core.tape import Point, State, Tape
from fewstep.solvers.stochastic import drawn


def consistency(tape: Tape, *, sigma_min: float = 0.0, s_noise: float = 1.0) -> State:
    """Multistep consistency sampling: Song et al. 2023, arXiv 2303.01469, algorithm 1. x_q = alpha_q (x0 + s z).

    `sigma_min` is the ratio at which the consistency model is the identity, so that its output still has that much
    noise and s^2 = ratio_q^2 - sigma_min^2, as in the paper and in diffusers (0.002). At 0, the default, the marginals
    are the schedule's. `s_noise` multiplies the noise that is drawn.
    """
    not_negative(sigma_min=sigma_min, s_noise=s_noise)
    if sigma_min:
        tape.inexact = f"the student's output is taken to have noise of sigma_min = {sigma_min:g}"
    if s_noise != 1:
        tape.inexact = f"s_noise = {s_noise:g} scales the noise that is drawn"
    x = tape.start()
    for p, q in tape.steps():
        level = math.sqrt(max(0.0, q.sigma**2 - (q.alpha * sigma_min) ** 2))
        x = q.alpha * tape.evaluate(x, p) + drawn(tape, p, q, level * s_noise)
    return x


def lcm(tape: Tape, *, boundary: bool | None = None, timestep_scaling: float = 10.0) -> State:
    """Latent consistency models: Luo et al. 2023, arXiv 2310.04378, eq. 9 and algorithm 3.

        x_q = alpha_q f + sigma_q z,     f = c_skip x + c_out x0,
        c_skip = d^2 / (s^2 + d^2),      c_out = s / sqrt(s^2 + d^2),     s = timestep_scaling t,     d = 0.5

    f is the identity at t = 0. These scalings are in model time and depart from the marginals: `boundary` None applies
    them on beta schedules, as diffusers does, and takes f = x0 on `edm` and `flow`.
    """
    on = isinstance(tape.schedule, BetaSchedule) if boundary is None else boundary
    positive("timestep_scaling", timestep_scaling)
    if on:
        tape.inexact = "the boundary scalings of LCM mix some of the noisy state into the data"
    x = tape.start()
    for p, q in tape.steps():
        f = tape.evaluate(x, p)
        if on:
            s = timestep_scaling * max(p.t, 0.0)
            f = 0.25 / (s**2 + 0.25) * x + s / math.hypot(s, 0.5) * f
        x = q.alpha * f + drawn(tape, p, q, q.sigma)
    return x


def tcd(tape: Tape, *, eta: float = 0.3) -> State:
    """Trajectory consistency distillation, strategic stochastic sampling: Zheng et al. 2024, arXiv 2402.19159, alg. 4.

    `eta` in [0, 1] is the paper's gamma: a step goes by DDIM to the time (1 - eta) t_q, and by noise up to t_q. 0 is
    DDIM, and 1 draws all noise anew. Times of beta schedules are rounded down to integers where t_q is one, as in
    diffusers. Where the denoiser clips, the data is the clipped estimate and the noise the raw one, as in "ddim".
    """
    if not 0 <= eta <= 1:
        raise InvalidInput(f"eta must lie in [0, 1], got {eta}")
    x = tape.start()
    for p, q in tape.steps():
        s = strategic(tape, q, eta)
        left = q.sigma if s is q else q.alpha / s.alpha * s.sigma
        data, raw = tape.evaluate_raw(x, p)
        x = q.alpha * data + left / p.sigma * (x - p.alpha * raw)
        x = x + drawn(tape, p, q, math.sqrt(max(0.0, q.sigma**2 - left**2)))
    return x


def strategic(tape: Tape, q: Point, eta: float) -> Point:
    """The point at (1 - eta) t_q that TCD aims at, never noisier than q."""
    t = (1 - eta) * q.t
    if isinstance(tape.schedule, BetaSchedule) and float(q.t).is_integer():
        t = math.floor(t + 1e-9)
    return q if t >= q.t else tape.point(float(t))
