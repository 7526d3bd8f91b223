"""SA-Solver: stochastic Adams methods for the reverse SDE, as predictor and corrector.

Xue et al. 2023, arXiv 2309.05019, eq. 14 and algorithm 1, data prediction. With h = lambda_q - lambda_p and a = 1 + tau^2,

    x_q = sigma_q / sigma_p e^(-tau^2 h) x_p + alpha_q sum_j b_j x0_j + sigma_q sqrt(1 - e^(-2 tau^2 h)) z
    b_j = int_0^1 a h e^(-a h (1 - v)) l_j(v) dv,      v = (lambda - lambda_p) / h

where l_j are the Lagrange polynomials of the nodes: the last evaluations, and for the corrector the one at q too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fewstep.core.errors import InvalidInput
from fewstep.core.schedule import Float
from fewstep.core.tape import Point, State, Tape
from fewstep.solvers.exponential import check_order, finite
from fewstep.solvers.stochastic import check_noise, drawn, drift


def moments(H: float, count: int) -> Float:
    """int_0^1 H e^(-H (1 - v)) v^n dv for n = 0 .. count - 1: by recursion, or by the series where that would cancel."""
    if abs(H) < 1:
        terms = range(25)
        return np.array(
            [H * sum((-H) ** k * math.factorial(n) / math.factorial(n + k + 1) for k in terms) for n in range(count)]
        )
    m = [-math.expm1(-H)]
    for n in range(1, count):
        m.append(1 - n * m[-1] / H)
    return np.array(m)


def adams(nodes: Sequence[float], H: float, variant: str) -> Float:
    """b_j for the nodes v_j: what integrates polynomials through them exactly. Their sum is 1 - e^-H to the last bit or so."""
    m = moments(H, len(nodes))
    if variant == "leading" and len(nodes) == 2:
        m[1] = H / 2
    b = np.linalg.solve(np.vander(nodes, increasing=True).T, m)
    b[0] += m[0] - b.sum()
    return b


def sa_solver(
    tape: Tape,
    *,
    predictor_order: int = 2,
    corrector_order: int = 2,
    tau: float = 1.0,
    tau_min: float = 0.05,
    tau_max: float = 50.0,
    variant: str = "exact",
    lower_order_final: bool = True,
) -> State:
    """One evaluation a step: it corrects the state that it was made at, and predicts the next.

    `tau` is the amount of noise, 0 for the ODE and 1 for the reverse SDE, in steps from a ratio in [tau_min, tau_max]; elsewhere 0
    (the paper's interval for ImageNet; diffusers has tau = 1 at the times 200 to 800). Orders are 1 to 4; corrector_order 0
    leaves the corrector out. `variant` 'leading' takes, at order 2, the linear term's weight as a h / 2, its value for small h, as
    the authors' code and diffusers do.
    """
    check_order("the predictor of SA-Solver", predictor_order, (1, 2, 3, 4))
    check_order("the corrector of SA-Solver", corrector_order, (0, 1, 2, 3, 4))
    if variant not in ("exact", "leading"):
        raise InvalidInput(f"variant must be 'exact' or 'leading', got {variant!r}")
    if not (0 <= tau < math.inf and 0 <= tau_min <= tau_max):
        raise InvalidInput(
            "tau must be a finite number of at least 0, and 0 <= tau_min <= tau_max: "
            f"got tau={tau}, tau_min={tau_min}, tau_max={tau_max}"
        )
    check_noise(tape, tau**2, most=math.inf)
    x = tape.start()
    history: list[tuple[Point, State]] = []  # newest first
    corrected, weight = None, 0.0
    for i, (p, q) in enumerate(tape.steps()):
        data = tape.evaluate(x, p)
        if corrected is not None:
            x = corrected + weight * data
        history = [(p, data), *((r, m) for r, m in history if math.isfinite(r.lam))][:4]
        k, g, v = drift(p, q, tau**2 if tau_min <= p.ratio <= tau_max else 0.0)
        known = k * x + drawn(tape, p, q, v)
        left = len(tape.points) - 1 - i
        corrected = None
        if not finite(p, q):
            x = known + (q.alpha - p.alpha * k) * data
            continue
        nodes = [(r.lam - p.lam) / (q.lam - p.lam) for r, _ in history]
        order = min(predictor_order, len(history), left if lower_order_final else predictor_order)
        terms = zip(adams(nodes[:order], -g, variant), history, strict=False)
        x = known + sum(q.alpha * b * m for b, (_, m) in terms)
        order = min(corrector_order, len(history) + 1)
        if order and left > 1:
            new, *old = adams([1.0, *nodes][:order], -g, variant)
            corrected = tape.keep(known + sum(q.alpha * b * m for b, (_, m) in zip(old, history, strict=False)))
            weight = q.alpha * new
    return x
