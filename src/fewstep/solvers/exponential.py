"""DPM-Solver and DPM-Solver++: exponential integrators in lambda = log(alpha / sigma).

The exact solution from p to q, with h = lambda_q - lambda_p, has one form for both predictions m (Lu et al. 2022,
arXiv 2206.00927, eq. 3.4, and arXiv 2211.01095, eq. 9):

    x_q = k x_p - c (w0 m + w1 m' + w2 m'' ..)

    noise prediction (DPM-Solver):      m = eps,  k = alpha_q / alpha_p,  c = sigma_q,  g = h
    data prediction  (DPM-Solver++):    m = x0,   k = sigma_q / sigma_p,  c = alpha_q,  g = -h
    its reverse SDE (SDE-DPM-Solver++): k e^(-eta h) for k, g = -(1 + eta) h, plus sigma_q sqrt(1 - e^(-2 eta h)) z

with w0 = e^g - 1, w1 = (e^g - 1) / g - 1, w2 = (e^g - 1 - g) / g^2 - 1/2, and derivatives in units of the step.
Members differ in how they estimate m' and m'': from earlier rows (multistep, M), or from rows inside the step
(singlestep, S).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from fewstep.core.errors import InvalidInput
from fewstep.core.schedule import Float
from fewstep.core.tape import Point, State, Tape, noise_in, transfer
from fewstep.solvers.ddim import check_noise, drawn

Prediction = Literal["data", "noise"]
Rows = list[tuple[Point, State]]
"""Points at which the network was evaluated, and what was predicted there."""

WIDEST = math.log(1024)
"""Singlesteps that would amplify more than 1024 times are of first order: inner rows would be weighted by as much."""
LOUDEST = 50.0
"""Earlier rows are left out where they would be weighted more than this: a network's error would drown the rest."""

_nodes, _weights = np.polynomial.legendre.leggauss(32)
NODES, WEIGHTS = 0.5 * (_nodes + 1), 0.5 * _weights
"""Gauss-Legendre quadrature on [0, 1]: exact to rounding for polynomials, also times e^(g s), |g| < 40."""


def too_loud(weights: Iterable[float], q: Point) -> bool:
    """Whether `weights` on differences of rows sum to more than LOUDEST, in units of a state at `q`."""
    return sum(map(abs, weights)) > LOUDEST * max(1.0, q.sigma)


def lagrange_integrals(nodes: list[float], at: Float, density: Float) -> list[float]:
    """Sums of `density` L_j over the points `at`; L_1, L_2 .. are Lagrange polynomials through `nodes`."""
    weights = []
    for j in range(1, len(nodes)):
        others = nodes[:j] + nodes[j + 1 :]
        factors = [(at - node) / (nodes[j] - node) for node in others]
        weights.append(float(np.sum(density * np.prod(factors, axis=0))))
    return weights


def has_inside(p: Point, q: Point, prediction: str) -> bool:
    """Whether a step may have inner rows: lambda finite at both ends, and not too wide in the unstable direction."""
    return math.isfinite(q.lam - p.lam) and factors(p, q, prediction)[2] <= WIDEST + 1e-9


def factors(p: Point, q: Point, prediction: str) -> tuple[float, float, float]:
    """(k, c, g) of the formula above."""
    h = q.lam - p.lam
    if prediction == "data":
        return q.sigma / p.sigma, q.alpha, -h
    return q.alpha / p.alpha, q.sigma, h


def drift(p: Point, q: Point, eta: float) -> tuple[float, float, float]:
    """(k, g, v) of the reverse SDE in data prediction, v the amplitude of its noise; `eta` = 0 is the ODE."""
    h = q.lam - p.lam
    loss = eta * h if eta else 0.0
    return q.sigma / p.sigma * math.exp(-loss), -(1 + eta) * h, q.sigma * math.sqrt(-math.expm1(-2 * loss))


def weights(g: float) -> tuple[float, float, float]:
    """(w0, w1, w2) of the formula above, by their series where the closed forms would cancel."""
    if abs(g) < 0.02:
        w1 = sum(g**n / math.factorial(n + 1) for n in range(1, 9))
        w2 = sum(g**n / math.factorial(n + 2) for n in range(1, 9))
        return math.expm1(g), w1, w2
    w0 = math.expm1(g)
    return w0, w0 / g - 1, (w0 - g) / g**2 - 0.5


def remembered(history: Rows, p: Point, m: State, most: int) -> Rows:
    """`history`, the newest first, with the row (p, m) before it: `most` rows, without earlier ones where alpha = 0."""
    return [(p, m), *((r, n) for r, n in history if math.isfinite(r.lam))][:most]


def falls(steps: int, lower_order_final: bool | None) -> bool:
    """Whether the order of a multistep solver falls towards the end; None: with fewer than 15 steps, for stability."""
    return steps < 15 if lower_order_final is None else lower_order_final


def multistep(
    tape: Tape,
    *,
    order: int = 2,
    prediction: Prediction = "data",
    eta: float = 0.0,
    variant: Literal["midpoint", "heun"] = "midpoint",
    curvature: Literal["published", "exact"] = "published",
    lower_order_final: bool | None = None,
    euler_at_final: bool = False,
    s_noise: float = 1.0,
) -> State:
    """DPM-Solver++(2M), (3M), the multistep DPM-Solver and SDE-DPM-Solver++: arXiv 2211.01095, algorithm 2, section 5.

    `variant` weighs the second-order term: `midpoint` with w0 / 2 as in the paper, `heun` with w1, exact for a linear
    m. `curvature` weighs the third-order term, h^2 m'' / 2: `published` with w2, as the authors' code and all others
    do, which is half of the exact weight and leaves (3M) at order 2; `exact` with 2 w2. `eta` of data prediction is 0
    for the ODE and 1 for the reverse SDE; `s_noise` multiplies the noise that is drawn. With `euler_at_final` the last
    step is of first order, whatever `lower_order_final` says.
    """
    check_noise(tape, eta, s_noise, most=math.inf if prediction == "data" else 0.0)
    x = tape.start()
    history: Rows = []
    steps = len(tape.points) - 1
    falling = falls(steps, lower_order_final)
    for i, (p, q) in enumerate(tape.steps()):
        data = tape.evaluate(x, p)
        m = data if prediction == "data" else noise_in(x, data, p)
        history = remembered(history, p, tape.keep(m), most=order)
        now = min(len(history), steps - i) if falling else len(history)
        if euler_at_final and i == steps - 1:
            now = 1
        k, g, v = drift(p, q, eta)
        x = k * x + (q.alpha - p.alpha * k) * data  # k x - c w0 m0
        if now > 1 and has_inside(p, q, prediction):
            c = q.alpha
            if prediction == "noise":
                _, c, g = factors(p, q, prediction)
            w0, w1, w2 = weights(g)
            h = q.lam - p.lam
            (_, m0), (p1, m1), *older = history
            r0 = (p.lam - p1.lam) / h
            first = (m0 - m1) / r0
            if now == 2:
                w = w0 / 2 if variant == "midpoint" else w1
                x = x - c * w * first
            else:
                p2, m2 = older[0]
                r1 = (p1.lam - p2.lam) / h
                second = (first - (m1 - m2) / r1) / (r0 + r1)
                w = 2 * w2 if curvature == "exact" else w2
                x = x - c * (w1 * (first + r0 * second) + w * second)
        x = x + drawn(tape, p, q, v * s_noise)
    return x


def singlestep(
    tape: Tape, *, order: int = 2, prediction: Prediction = "data", r1: float | None = None, r2: float = 2 / 3
) -> State:
    """DPM-Solver-2, -3 and DPM-Solver++(2S), (3S): `order` evaluations a step, and no history.

    arXiv 2206.00927, algorithms 1 and 2; arXiv 2211.01095, algorithm 1. The inner rows lie at the fractions `r1` <
    `r2` of the step in lambda. A step that starts at alpha = 0 or ends at sigma = 0 has no inside in lambda and is of
    first order; so is one that noise prediction would amplify beyond use (`WIDEST`).
    """
    if r1 is None:
        r1 = 0.5 if order == 2 else 1 / 3
    above = r2 if order == 3 else 1
    if not 0 < r1 < above or not r2 < 1:
        raise InvalidInput(f"the fractions of the step must satisfy 0 < r1 < r2 < 1, got r1 = {r1}, r2 = {r2}")
    x = tape.start()
    for p, q in tape.steps():
        fractions = (r1, r2)[: order - 1] if has_inside(p, q, prediction) else ()
        inner = [tape.point_at_lambda(p.lam + r * (q.lam - p.lam)) for r in fractions]
        x = advance(tape, x, p, q, inner, prediction)
    return x


def advance(
    tape: Tape, x: State, p: Point, q: Point, inner: Sequence[Point], prediction: str, variant: str | None = None
) -> State:
    """One singlestep of order len(inner) + 1, whose inner rows are at the points `inner`.

    `variant` None weighs the terms as the papers do: the last one of order 2 by w0 / 2, those of order 3 by w1.
    """
    data = tape.evaluate(x, p)
    if not inner:
        return transfer(x, data, p, q)
    s1 = inner[0]
    if len(inner) == 1:
        w = _slope_weight(p, s1, q, prediction, variant or "midpoint")
        base = tape.keep(transfer(x, data, p, q) - w * data)
        return base + w * tape.evaluate(transfer(x, data, p, s1), s1)
    s2 = inner[1]
    w21 = _slope_weight(p, s1, s2, prediction, variant or "heun")
    w31, w32 = _third_order_weights((p, s1, s2, q), prediction, variant, w21)
    second = tape.keep(transfer(x, data, p, s2) - w21 * data)
    last = tape.keep(transfer(x, data, p, q) - (w31 + w32) * data)
    d1 = tape.evaluate(transfer(x, data, p, s1), s1)
    last = tape.keep(last + w31 * d1)
    return last + w32 * tape.evaluate(second + w21 * d1, s2)


def _gain(s: Point, prediction: str) -> float:
    """m_1 - m_0 as a multiple of D_1 - D_0, for a row at `s`: x cancels, as the row has what noise is left of m_0."""
    return 1.0 if prediction == "data" else -1 / s.ratio


def _slope_weight(p: Point, s1: Point, s: Point, prediction: str, variant: str) -> float:
    """Of D_1 - D_0, with D_1 at `s1`, in the step of order 2 from `p` to `s`."""
    _, c, g = factors(p, s, prediction)
    w0, w1, _ = weights(g)
    w = w0 / 2 if variant == "midpoint" else w1
    return -c * w * (s.lam - p.lam) / (s1.lam - p.lam) * _gain(s1, prediction)


def _third_order_weights(
    points: tuple[Point, Point, Point, Point], prediction: str, variant: str | None, w21: float
) -> tuple[float, float]:
    """Of D_1 - D_0 and D_2 - D_0 in the step over `points` (p, s1, s2, q); `w21` is that of D_1 - D_0 at s2."""
    p, s1, s2, q = points
    _, c, g = factors(p, q, prediction)
    _, w1, w2 = weights(g)
    a, b = ((s.lam - p.lam) / (q.lam - p.lam) for s in (s1, s2))
    v1, v2 = 0.0, w1 / b
    if variant == "heun":  # the slope and the curvature of the parabola through the three rows
        v1 = (w1 * b - 2 * w2) / (a * (b - a))
        v2 = (2 * w2 - w1 * a) / (b * (b - a))
    carried = 0.0 if prediction == "data" else w21 / s2.sigma
    w31 = -c * (v1 * _gain(s1, prediction) + v2 * carried)
    w32 = -c * v2 * _gain(s2, prediction)
    return w31, w32


def grouped(
    tape: Tape,
    *,
    order: Literal[1, 2, 3] = 3,
    prediction: Prediction = "data",
    variant: Literal["paper", "heun", "midpoint"] = "heun",
    lower_order_final: bool = False,
) -> State:
    """Singlestep DPM-Solver whose inner rows are grid times too: N steps cost N evaluations, as in diffusers.

    The grid is cut into groups of `order` steps, and what is left at the end into smaller ones; with
    `lower_order_final` there is always a smaller one, "DPM-Solver-fast" of arXiv 2206.00927, section 3.3 and appendix.
    `variant` is `paper` for that paper's weights, of order 3 where the inner rows lie at 1/3 and 2/3 of a group in
    lambda; `heun`, of order 3 wherever they lie; or `midpoint`, diffusers' own.
    """
    x = tape.start()
    sizes = group_sizes(tape.points, order, prediction, lower_order_final)
    for p, *inner, q in tape.steps(sizes):
        x = advance(tape, x, p, q, inner, prediction, None if variant == "paper" else variant)
    return x


def group_sizes(points: Sequence[Point], order: int, prediction: str, lower_order_final: bool) -> list[int]:
    """How many grid steps each group of `grouped` spans; one that may have no inner rows is cut into smaller ones."""
    full, rest = divmod(len(points) - 1, order)
    sizes = [order] * full + [rest]
    if lower_order_final and rest == 0:
        sizes = [order] * (full - 1) + [order - 1, 1]
    elif not lower_order_final and (order, rest) == (3, 1) and full and math.isfinite(points[-1].lam):
        sizes = [3] * (full - 1) + [2, 2]  # one step of order 1 would leave the whole at order 2

    def cut(group: Sequence[Point]) -> list[int]:
        if len(group) <= 2 or has_inside(group[0], group[-1], prediction):
            return [len(group) - 1]
        if math.isinf(group[0].lam):
            return [1, *cut(group[1:])]
        if math.isinf(group[-1].lam):
            return [*cut(group[:-1]), 1]
        return [1] * (len(group) - 1)

    found: list[int] = []
    for size in sizes:
        if size:
            first = sum(found)
            found += cut(points[first : first + size + 1])
    return found
