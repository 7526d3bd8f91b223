"""DDPM and DDIM: one evaluation a step, one register.

A step from p to q keeps the predicted data and scales the predicted noise down to what q asks for:

    x_q = alpha_q x0 + sqrt(sigma_q^2 - v^2) eps + v z,      eps = (x_p - alpha_p x0) / sigma_p
"""

from __future__ import annotations

import math
from typing import Literal

from fewstep.core.errors import InvalidInput, not_negative
from fewstep.core.tape import Point, State, Tape, noise_in


def fall(p: Point, q: Point) -> float:
    """ratio_q / ratio_p, also where a ratio is infinite."""
    return p.alpha * q.sigma / (q.alpha * p.sigma) if q.alpha else 1.0


def posterior_std(p: Point, q: Point) -> float:
    """Standard deviation of q(x_q | x_p, x0): Ho et al. 2020, arXiv 2006.11239, eq. 7 (eta = 1 in DDIM, eq. 16).

    sigma_q / sigma_p sqrt(1 - (alpha_p / alpha_q)^2) where variance is preserved; written with ratios for any
    schedule; 0 where q is noisier than p.
    """
    return q.sigma * math.sqrt(max(0.0, 1 - fall(p, q) ** 2))


def check_noise(tape: Tape, eta: float, s_noise: float = 1.0, most: float = 1.0) -> None:
    """Raise `InvalidInput` unless 0 <= eta <= most and s_noise >= 0, and for noise on a grid that goes up."""
    if not 0 <= eta <= most or not math.isfinite(eta):
        allowed = f"lie in [0, {most:g}]" if math.isfinite(most) else "be a finite number of at least 0"
        raise InvalidInput(f"eta must {allowed}, got {eta}")
    not_negative(s_noise=s_noise)
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


def ddim(tape: Tape, *, eta: float = 0.0) -> State:
    """DDIM: Song et al. 2020, arXiv 2010.02502, eq. 12 and 16. `eta` in [0, 1]: 0 deterministic, 1 ancestral.

    Where the denoiser clips, the data is the clipped estimate and the noise the raw one, as in diffusers.
    """
    check_noise(tape, eta)
    x = tape.start()
    for p, q in tape.steps():
        data, raw = tape.evaluate_raw(x, p)
        eps = noise_in(x, raw, p)
        v = eta * posterior_std(p, q)
        x = q.alpha * data + math.sqrt(max(0.0, q.sigma**2 - v**2)) * eps + drawn(tape, p, q, v)
    return x


def ddpm(tape: Tape, *, variance: Literal["fixed_small", "fixed_large"] = "fixed_small") -> State:
    """DDPM ancestral sampling, on any subsequence: Ho et al. 2020, arXiv 2006.11239, eq. 7 and algorithm 2.

    `variance` is that of the added noise: `fixed_small`, the posterior's, or `fixed_large`, the forward process's beta
    of the step. The large one adds more noise than the schedule has; the last step to clean data adds none.
    """
    check_noise(tape, 1.0)
    if variance == "fixed_large":
        tape.inexact = "the variance of the forward process is larger than the posterior's"
    x = tape.start()
    for p, q in tape.steps():
        data = tape.evaluate(x, p)
        v = posterior_std(p, q)
        eps = noise_in(x, data, p)
        x = q.alpha * data + math.sqrt(max(0.0, q.sigma**2 - v**2)) * eps
        if v > 0 and variance == "fixed_large":
            v = v * p.sigma / q.sigma
        x = x + drawn(tape, p, q, v)
    return x
