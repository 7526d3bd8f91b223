"""SA-Solver: stochastic Adams methods for the reverse SDE, as predictor and corrector.

Xue et al. 2023, arXiv 2309.05019, eq. 14 and algorithm 1, data prediction. With g = -(1 + tau^2) (lambda_q -
lambda_p),

    x_q = k x_p + alpha_q sum_j b_j x0_j + v z,      b_j = -g int_0^1 e^((1 - s) g) L_j(s) ds

k and v those of `exponential.drift` with eta = tau^2, and L_j the Lagrange polynomials in lambda (0 at p, 1 at q)
through the last evaluations, and for the corrector through the one at q too.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from fewstep.core.errors import InvalidInput, not_negative
from fewstep.core.tape import State, Tape
from fewstep.solvers.ddim import check_noise, drawn
from fewstep.solvers.exponential import NODES, WEIGHTS, Rows, drift, lagrange_integrals, remembered


def differences(places: list[float], g: float, variant: str) -> list[float]:
    """-b_j of the rows at all `places` but the first, which is 0."""
    if variant == "leading" and len(places) == 2:
        return [g / 2 / places[1]]
    return lagrange_integrals(places, NODES, g * WEIGHTS * np.exp((1 - NODES) * g))


def sa_solver(
    tape: Tape,
    *,
    predictor_order: Literal[1, 2, 3, 4] = 2,
    corrector_order: Literal[0, 1, 2, 3, 4] = 2,
    tau: float = 1.0,
    tau_min: float = 0.57,
    tau_max: float = 5.12,
    variant: Literal["exact", "leading"] = "exact",
    lower_order_final: bool = True,
) -> State:
    """One evaluation a step: it corrects the state that it was made at, and predicts the next.

    `tau` is the amount of noise in steps from a ratio in [tau_min, tau_max], 0 for the ODE and 1 for the reverse SDE;
    elsewhere it is 0. The default interval is that of diffusers: the times 200 to 800 of Stable Diffusion's schedule.
    Orders are 1 to 4; corrector_order 0 leaves the corrector out. At order 2 the `variant` 'leading' weighs the linear
    term with its limit for small h, as the authors' code and diffusers do: it amplifies wide steps.
    """
    not_negative(tau=tau, tau_min=tau_min, tau_max=tau_max)
    if tau_min > tau_max:
        raise InvalidInput(f"give tau_min not above tau_max, got tau_min={tau_min} and tau_max={tau_max}")
    check_noise(tape, tau**2, most=math.inf)
    x = tape.start()
    history: Rows = []
    steps = len(tape.points) - 1
    corrected: State | None = None  # x without its own row, whose data has this weight
    weight = 0.0
    for i, (p, q) in enumerate(tape.steps()):
        data = tape.evaluate(x, p)
        if corrected is not None:
            x = corrected + weight * data
        history = remembered(history, p, data, most=4)
        k, g, v = drift(p, q, tau**2 if tau_min <= p.ratio <= tau_max else 0.0)
        total = q.alpha - p.alpha * k
        first = k * x + total * data + drawn(tape, p, q, v)
        corrected = None
        if not math.isfinite(q.lam - p.lam):
            x = first
            continue
        left = steps - i if lower_order_final else 4
        places = [(r.lam - p.lam) / (q.lam - p.lam) for r, _ in history]
        older = [q.alpha * (data - m) for _, m in history[1:]]
        ahead = differences(places[: min(predictor_order, left)], g, variant)
        x = first + sum((w * m for w, m in zip(ahead, older, strict=False)), State({}))
        if corrector_order == 1:
            corrected = tape.keep(first - total * data)
            weight = total
        elif corrector_order:
            *behind, own = differences([*places[: min(corrector_order - 1, left)], 1.0], g, variant)
            change = sum((w * m for w, m in zip(behind, older, strict=False)), q.alpha * own * data)
            corrected = tape.keep(first + change)
            weight = -q.alpha * own
    return x
