"""DDPM and DDIM: one evaluation a step, one register.

A step from p to q keeps the predicted data and scales the predicted noise down to what q asks for:

    x_q = alpha_q x0 + sqrt(sigma_q^2 - v^2) eps + v z,      eps = (x_p - alpha_p x0) / sigma_p
"""

from __future__ import annotations

import math

from fewstep.core.errors import InvalidInput
from fewstep.core.tape import Point, State, Tape


def transfer(x: State, data: State, p: Point, q: Point) -> State:
    """The exact step from `p` to `q` for data that does not change (DDIM, also DPM-Solver++ of order 1)."""
    keep = q.sigma / p.sigma
    return keep * x + (q.alpha - p.alpha * keep) * data


def posterior_std(p: Point, q: Point) -> float:
    """Standard deviation of q(x_q | x_p, x0): Ho et al. 2020, arXiv 2006.11239, eq. 7 (eta = 1 in DDIM, eq. 16).

    sigma_q / sigma_p sqrt(1 - (alpha_p / alpha_q)^2) where variance is preserved; written with ratios for any
    schedule. Raises `InvalidInput` where q is noisier than p.
    """
    if q.ratio > p.ratio:
        raise InvalidInput(
            "a sampler that draws noise cannot be run in reverse: choose a deterministic one, as ddim is"
        )
    between = 1 - (p.alpha * q.sigma / (q.alpha * p.sigma)) ** 2 if p.alpha else 1.0
    return q.sigma * math.sqrt(max(0.0, between))


def ddim(tape: Tape, *, eta: float = 0.0) -> State:
    """DDIM: Song et al. 2020, arXiv 2010.02502, eq. 12 and 16. `eta` in [0, 1]: 0 deterministic, 1 ancestral.

    Where the denoiser clips, the data is the clipped estimate and the noise the raw one, as in diffusers.
    """
    if not 0 <= eta <= 1:
        raise InvalidInput(f"eta must lie in [0, 1], got {eta}")
    x = tape.start()
    for p, q in tape.steps():
        data, raw = tape.evaluate_raw(x, p)
        eps = (x - p.alpha * raw) / p.sigma
        v = eta * posterior_std(p, q) if eta else 0.0
        x = q.alpha * data + math.sqrt(max(0.0, q.sigma**2 - v**2)) * eps
        if v > 0:
            x = x + v * tape.noise(p, q)
    return x


def ddpm(tape: Tape, *, variance: str = "fixed_small") -> State:
    """DDPM ancestral sampling, on any subsequence: Ho et al. 2020, arXiv 2006.11239, eq. 7 and algorithm 2.

    `variance` is that of the added noise: `fixed_small`, the posterior's, or `fixed_large`, the forward process's beta
    of the step. The large one adds more noise than the schedule has; the last step to clean data adds none.
    """
    if variance not in ("fixed_small", "fixed_large"):
        raise InvalidInput(f"variance must be 'fixed_small' or 'fixed_large', got {variance!r}")
    if variance == "fixed_large":
        tape.inexact = "the variance of the forward process is larger than the posterior's"
    x = tape.start()
    for p, q in tape.steps():
        data = tape.evaluate(x, p)
        v = posterior_std(p, q)
        eps = (x - p.alpha * data) / p.sigma
        x = q.alpha * data + math.sqrt(max(0.0, q.sigma**2 - v**2)) * eps
        if v > 0:
            large = v * p.sigma / q.sigma
            x = x + (large if variance == "fixed_large" else v) * tape.noise(p, q)
    return x
