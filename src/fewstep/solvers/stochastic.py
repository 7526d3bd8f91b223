"""Samplers of the reverse diffusion: part of the noise of a step is taken away, part of it is drawn anew.

The ancestral samplers of k-diffusion go down to less noise than `q` has and up again:

    p -> down by a step of the ODE,    x_q = x_down + v z,    v = eta sigma_q sqrt(1 - (ratio_q / ratio_p)^2)

`eta` 0 draws nothing and 1 draws as much as the reverse SDE, whose own integrators are `exponential.multistep`.
`s_noise` multiplies what is drawn: where it is not 1, the marginals are no longer those of the schedule.
"""

from __future__ import annotations

import math

from fewstep.core.errors import InvalidInput
from fewstep.core.tape import Point, State, Tape, transfer
from fewstep.solvers.ddim import check_noise, drawn, fall, posterior_std
from fewstep.solvers.exponential import WIDEST, advance


def ancestral(p: Point, q: Point, eta: float) -> tuple[Point, float]:
    """(down, v) of the formula above. `down` has the alpha of q and its time, as x_down is never evaluated."""
    v = eta * posterior_std(p, q)
    sigma = q.sigma * math.sqrt(1 - eta**2 + (eta * fall(p, q)) ** 2)
    return Point.of(q.t, q.alpha, sigma), v


def euler_ancestral(tape: Tape, *, eta: float = 1.0, s_noise: float = 1.0) -> State:
    """Euler's step down, then noise: k-diffusion's Euler ancestral. DDIM with the same eta (arXiv 2010.02502, eq. 16).

    With eta = 0 it is Euler's method, which is the same table in x / alpha and in the coordinate of flows. Where the
    denoiser clips, it takes the noise from the clipped data too, unlike "ddim".
    """
    check_noise(tape, eta, s_noise)
    x = tape.start()
    for p, q in tape.steps():
        down, v = ancestral(p, q, eta)
        x = transfer(x, tape.evaluate(x, p), p, down) + drawn(tape, p, q, v * s_noise)
    return x


def two_stage_ancestral(tape: Tape, *, prediction: str = "data", eta: float = 1.0, s_noise: float = 1.0) -> State:
    """A step of second order down, then noise: DPM-Solver++(2S) (data) and DPM-2 (noise) ancestral, as in k-diffusion.

    The inner row lies halfway to `down` in lambda; with eta = 1 that is the level of q itself.
    """
    check_noise(tape, eta, s_noise)
    x = tape.start()
    for p, q in tape.steps():
        down, v = ancestral(p, q, eta)
        inner = []
        # The inner row of noise prediction is weighted by the square root of the step's fall in ratio.
        if math.isfinite(down.lam - p.lam) and (prediction == "data" or (down.lam - p.lam) / 2 <= WIDEST + 1e-9):
            middle = (p.lam + down.lam) / 2
            at_end = math.isclose(middle, q.lam, abs_tol=1e-9)
            inner = [q if at_end else tape.point_at_lambda(middle)]
        x = advance(tape, x, p, down, inner, prediction) + drawn(tape, p, q, v * s_noise)
    return x


def dpmpp_sde(tape: Tape, *, eta: float = 1.0, r: float = 0.5, s_noise: float = 1.0) -> State:
    """k-diffusion's DPM-Solver++ SDE: two rows a step, the inner one, s, at the fraction `r` in lambda.

    Both rows have the noise of one Brownian motion W in ratio: the step adds W over (p, q), and W over (p, s) was added
    to the inner row. So the step's noise is

        sqrt(share) z1 + sqrt(1 - share) z2,      share = (ratio_p - ratio_s) / (ratio_p - ratio_q)
    """
    check_noise(tape, eta, s_noise)
    if not 0 < r < 1:
        raise InvalidInput(f"the fraction of the step must satisfy 0 < r < 1, got r = {r}")
    x = tape.start()
    for p, q in tape.steps():
        data = tape.evaluate(x, p)
        down, v = ancestral(p, q, eta)
        if not math.isfinite(q.lam - p.lam):
            x = transfer(x, data, p, down) + drawn(tape, p, q, v * s_noise)
            continue
        s = tape.point_at_lambda(p.lam + r * (q.lam - p.lam))
        down_s, v_s = ancestral(p, s, eta)
        share = (p.ratio - s.ratio) / (p.ratio - q.ratio)
        z = s_noise * drawn(tape, p, s, float(eta > 0))
        k = down.sigma / p.sigma
        total = q.alpha - p.alpha * k
        base = tape.keep(k * x + total * (1 - 0.5 / r) * data + v * math.sqrt(share) * z)
        inner = transfer(x, data, p, down_s) + v_s * z
        known = base + total * 0.5 / r * tape.evaluate(inner, s)
        x = known + drawn(tape, s, q, v * math.sqrt(1 - share) * s_noise)
    return x
