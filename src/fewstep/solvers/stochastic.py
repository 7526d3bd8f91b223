"""Samplers of the reverse diffusion: part of the noise of a step is taken away, part of it is drawn anew.

Two ways to say how much. The ancestral samplers of k-diffusion go down to less noise than `q` has and up again:

    p -> down by a step of the ODE,    x_q = x_down + v z,    v = eta sigma_q sqrt(1 - (ratio_q / ratio_p)^2)

The SDE samplers integrate, with h = lambda_q - lambda_p (arXiv 2211.01095, section 5, and k-diffusion for eta other
than 1),

    x_q = k x_p + alpha_q (1 + eta) int_0^h e^((1 + eta)(u - h)) x0 du + v z,
    k = sigma_q / sigma_p e^(-eta h),    v = sigma_q sqrt(1 - e^(-2 eta h))

Both draw the same noise at eta = 1 and none at eta = 0. `s_noise` multiplies what is drawn: other than 1, the
marginals are not those of the schedule any more.
"""

from __future__ import annotations

import math

from fewstep.core.errors import InvalidInput
from fewstep.core.tape import Point, State, Tape
from fewstep.solvers.ddim import transfer
from fewstep.solvers.exponential import (
    WIDEST,
    advance,
    check_curvature,
    check_order,
    check_variant,
    finite,
    order_at,
    weights,
)


def check_noise(tape: Tape, eta: float, s_noise: float = 1.0, most: float = 1.0) -> None:
    """Raise `InvalidInput` unless 0 <= eta <= most and s_noise >= 0, and for noise on a grid that goes up."""
    if not 0 <= eta <= most or not math.isfinite(eta):
        allowed = f"lie in [0, {most:g}]" if math.isfinite(most) else "be a finite number of at least 0"
        raise InvalidInput(f"eta must {allowed}, got {eta}")
    if not (math.isfinite(s_noise) and s_noise >= 0):
        raise InvalidInput(f"s_noise must be a finite number of at least 0, got {s_noise}")
    if eta > 0 and tape.points[0].t < tape.points[-1].t:
        raise InvalidInput(
            f"a sampler that draws noise (eta = {eta:g}) cannot be run in reverse: give eta=0, "
            "or choose a deterministic sampler such as 'ddim'"
        )
    if eta > 0 and s_noise != 1:
        tape.inexact = f"s_noise = {s_noise:g} scales the noise that is drawn"


def drawn(tape: Tape, p: Point, q: Point, amplitude: float) -> State:
    """Noise of the interval from p to q, or nothing where its amplitude is 0."""
    return amplitude * tape.noise(p, q) if amplitude > 0 else State({})


def ancestral(p: Point, q: Point, eta: float) -> tuple[Point, float]:
    """(down, v) of the formula above. `down` has the alpha of q and its time, as x_down is never evaluated."""
    fall = p.alpha * q.sigma / (q.alpha * p.sigma) if q.alpha else 1.0
    v = eta * q.sigma * math.sqrt(max(0.0, 1 - fall**2))
    sigma = q.sigma * math.sqrt(1 - eta**2 + (eta * fall) ** 2)
    lam = math.inf if sigma == 0 else -math.inf if q.alpha == 0 else math.log(q.alpha) - math.log(sigma)
    return Point(q.t, q.alpha, sigma, lam), v


def euler_ancestral(tape: Tape, *, eta: float = 1.0, s_noise: float = 1.0) -> State:
    """Euler's step down, then noise: k-diffusion's Euler ancestral. DDIM with the same eta (arXiv 2010.02502, eq. 16).

    Unlike "ddim" it takes the noise from the clipped data too, where the denoiser clips.
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
        if finite(p, down) and (prediction == "data" or (down.lam - p.lam) / 2 <= WIDEST + 1e-9):
            middle = (p.lam + down.lam) / 2
            inner = [q if math.isclose(middle, q.lam, abs_tol=1e-9) else tape.point_at_lambda(middle)]
        x = advance(tape, x, p, down, inner, prediction) + drawn(tape, p, q, v * s_noise)
    return x


def dpmpp_sde(tape: Tape, *, eta: float = 1.0, r: float = 0.5, s_noise: float = 1.0) -> State:
    """k-diffusion's DPM-Solver++ SDE: two rows a step, the inner one at the fraction `r` in lambda, with its own
    noise.

    Its noise is that of one Brownian motion W in ratio: the step adds W over (p, q), of which (p, s) was added to the
    inner row. So the step's noise is sqrt(share) z1 + sqrt(1 - share) z2, share = (ratio_p - ratio_s) / (ratio_p -
    ratio_q).
    """
    check_noise(tape, eta, s_noise)
    if not 0 < r < 1:
        raise InvalidInput(f"the fraction of the step must satisfy 0 < r < 1, got r = {r}")
    x = tape.start()
    for p, q in tape.steps():
        data = tape.evaluate(x, p)
        down, v = ancestral(p, q, eta)
        if not finite(p, q):
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


def drift(p: Point, q: Point, eta: float) -> tuple[float, float, float]:
    """(k, g, v) of the SDE: g = -(1 + eta) h is what the weights of the data terms depend on."""
    h = q.lam - p.lam
    loss = eta * h if eta else 0.0
    return q.sigma / p.sigma * math.exp(-loss), -(1 + eta) * h, q.sigma * math.sqrt(-math.expm1(-2 * loss))


def multistep(
    tape: Tape,
    *,
    order: int = 2,
    eta: float = 1.0,
    variant: str | None = None,
    curvature: str = "published",
    lower_order_final: bool | None = None,
    s_noise: float = 1.0,
) -> State:
    """SDE-DPM-Solver++(1), (2M) and (3M): arXiv 2211.01095, section 5; the third order as in k-diffusion.

    `eta` = 0 is the multistep DPM-Solver++, 1 the reverse SDE. `variant` weighs the second-order term: `midpoint` by
    half the first one's weight (the default of order 2), `heun` exactly (that of order 3, for its second step).
    `curvature` weighs the third-order term as in `exponential.multistep`: order 3 has order 2 unless it is `exact`.
    """
    check_order("the multistep SDE-DPM-Solver++", order, (1, 2, 3))
    check_curvature(curvature)
    check_variant(variant := variant or ("heun" if order == 3 else "midpoint"))
    check_noise(tape, eta, s_noise, most=math.inf)
    x = tape.start()
    history: list[tuple[Point, State]] = []  # newest first
    for i, (p, q) in enumerate(tape.steps()):
        data = tape.evaluate(x, p)
        history = [(p, data), *((r, m) for r, m in history if math.isfinite(r.lam))][:3]
        now = min(order_at(i, len(tape.points) - 1, order, lower_order_final), len(history))
        k, g, v = drift(p, q, eta)
        x = k * x + (q.alpha - p.alpha * k) * data
        if now > 1 and finite(p, q):
            w0, w1, w2 = weights(g)
            h = q.lam - p.lam
            (_, m0), (p1, m1), *older = history
            r0 = (p.lam - p1.lam) / h
            first = (m0 - m1) / r0
            if now == 2:
                x = x - q.alpha * (w0 / 2 if variant == "midpoint" else w1) * first
            else:
                p2, m2 = older[0]
                r1 = (p1.lam - p2.lam) / h
                second = (first - (m1 - m2) / r1) / (r0 + r1)
                w2 = 2 * w2 if curvature == "exact" else w2
                x = x - q.alpha * (w1 * (first + r0 * second) + w2 * second)
        x = x + drawn(tape, p, q, v * s_noise)
    return x
