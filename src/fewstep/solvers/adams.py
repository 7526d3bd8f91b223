"""Adams-Bashforth methods on the predicted noise: LMS, DEIS, iPNDM and PNDM.

In r = sigma / alpha the probability-flow ODE is d(x / alpha) = eps dr. So a step from p to q is the exact one for
noise that does not change (DDIM), and a correction from the noise eps_1, eps_2 .. of earlier rows:

    x_q = ddim(x_p, eps_0) + alpha_q sum_j w_j (eps_j - eps_0),      w_j = integral of L_j dr over the step

with L_j the Lagrange polynomials through the rows that are remembered. Members differ in the variable that these are
polynomials of: r (LMS), log r (DEIS), or the number of the step (iPNDM, PNDM), where w_j is taken as a constant times
r_q - r_p. Differences, rather than the sum of all eps_j, keep the marginals exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np

from fewstep.core.tape import Point, State, Tape, noise_in, transfer
from fewstep.solvers.exponential import NODES, WEIGHTS, Rows, falls, lagrange_integrals, remembered, too_loud

FIXED = {1: (), 2: (-1 / 2,), 3: (-16 / 12, 5 / 12), 4: (-59 / 24, 37 / 24, -9 / 24)}
"""Adams-Bashforth weights of eps_1, eps_2 .. for even steps; eps_0 has what is missing to 1."""


def _step(
    x: State, data: State, p: Point, q: Point, noise: Sequence[State], weights: Callable[[int], list[float]]
) -> State:
    """A step by the module's formula, of order len(noise) or the highest below that is not too loud.

    `weights(order)` are alpha_q w_1, alpha_q w_2 ..
    """
    ddim = transfer(x, data, p, q)
    for order in range(len(noise), 1, -1):
        w = weights(order)
        if not too_loud(w, q):
            return ddim + sum(w_j * (e_j - noise[0]) for w_j, e_j in zip(w, noise[1:order], strict=True))
    return ddim


def deis(
    tape: Tape,
    *,
    order: int = 3,
    variable: Literal["log_rho", "rho", "time"] = "log_rho",
    lower_order_final: bool | None = None,
) -> State:
    """DEIS: Zhang & Chen 2022, arXiv 2204.13902, the Adams-Bashforth (AB) members.

    `variable` is what the noise is a polynomial of: `log_rho` (log of sigma / alpha), `rho` (LMS of k-diffusion) or
    `time` (t-AB). A step is of first order where it is infinite at one end, as log rho is at clean data.
    `lower_order_final` as in `exponential.falls`.
    """
    x = tape.start()
    history: Rows = []
    steps = len(tape.points) - 1
    falling = falls(steps, lower_order_final)
    for i, (p, q) in enumerate(tape.steps()):
        data = tape.evaluate(x, p)
        history = remembered(history, p, tape.keep(noise_in(x, data, p)), most=order)
        known = history[: steps - i] if falling else history
        if not (math.isfinite(q.lam - p.lam) or (variable == "rho" and p.alpha > 0 and q.alpha > 0)):
            known = history[:1]
        weights = partial(_exact_weights, tape, [r for r, _ in known], q, variable)
        x = _step(x, data, p, q, [eps for _, eps in known], weights)
    return x


def _exact_weights(tape: Tape, rows: Sequence[Point], q: Point, variable: str, order: int) -> list[float]:
    """alpha_q w_1, alpha_q w_2 .. for a step from rows[0] to `q`, from the first `order` rows."""
    p, rows = rows[0], rows[:order]
    if variable == "rho":
        h = q.ratio - p.ratio
        return lagrange_integrals([r.ratio - p.ratio for r in rows], h * NODES, q.alpha * h * WEIGHTS)
    h = q.lam - p.lam
    density = -q.sigma * h * WEIGHTS * np.exp(h - h * NODES)  # alpha_q dr = -sigma_q r / r_q d(lambda)
    if variable == "log_rho":
        return lagrange_integrals([r.lam - p.lam for r in rows], h * NODES, density)
    times = tape.schedule.time_of_lambda(p.lam + h * NODES)
    return lagrange_integrals([r.t - p.t for r in rows], times - p.t, density)


def ipndm(tape: Tape, *, order: int = 4) -> State:
    """iPNDM: Zhang & Chen 2022, arXiv 2204.13902: fixed weights, and lower orders until there is a history.

    The weights are exact where steps are even in sigma / alpha; on other smooth grids every order above 1 converges
    with order 2. The noise at alpha = 0 is remembered too: it is finite there.
    """
    x = tape.start()
    history: list[State] = []  # newest first
    for p, q in tape.steps():
        data = tape.evaluate(x, p)
        history = [tape.keep(noise_in(x, data, p)), *history][:order]
        x = _fixed_step(x, data, p, q, history)
    return x


def _fixed_step(x: State, data: State, p: Point, q: Point, history: Sequence[State]) -> State:
    """A step with fixed weights of order len(history); of first order from alpha = 0, where r is infinite."""
    known = history if p.alpha > 0 else history[:1]
    return _step(x, data, p, q, known, lambda order: [_span(p, q) * w for w in FIXED[order]])


def _span(p: Point, q: Point) -> float:
    """alpha_q (r_q - r_p), finite also where r_q is not."""
    return q.sigma - q.alpha * p.ratio


def pndm(tape: Tape, *, warmup: Literal["runge-kutta", "multistep"] = "runge-kutta") -> State:
    """PNDM: Liu et al. 2022, arXiv 2202.09778: the weights of `ipndm` at order 4, after a start by `warmup`.

    `runge-kutta`: three classical Runge-Kutta steps on the noise, of four evaluations each, as in the paper;
    `multistep`: lower orders, with the first step made twice, as in Stable Diffusion: N steps cost N + 1 evaluations.
    Steps from alpha = 0, steps to clean data and steps that are too wide have no inner rows.
    """
    x = tape.start()
    history: list[State] = []  # newest first
    for i, (p, q) in enumerate(tape.steps()):
        data = tape.evaluate(x, p)
        eps = tape.keep(noise_in(x, data, p))
        history = [eps, *history][:4]
        if warmup == "runge-kutta" and i < 3 and math.isfinite(q.lam - p.lam):
            middle = tape.point((p.t + q.t) / 2)
            # The inner rows weigh each other's noise, one after the other.
            if not too_loud([_span(p, middle) / middle.sigma * _span(p, q) ** 2 / q.sigma / 6], q):
                x = _runge_kutta_step(tape, x, eps, p, middle, q)
                continue
        x = _fixed_step(x, data, p, q, history)
        if warmup == "multistep" and i == 0 and math.isfinite(q.lam - p.lam) and not too_loud([_span(p, q) / 2], q):
            again = noise_in(x, tape.evaluate(x, q), q)
            x = x + _span(p, q) / 2 * (again - eps)
    return x


def _runge_kutta_step(tape: Tape, x: State, e1: State, p: Point, middle: Point, q: Point) -> State:
    """The classical method of order 4, with DDIM in place of adding a slope; `middle` is halfway in time."""

    def move(e: State, to: Point) -> State:
        return to.alpha / p.alpha * x + _span(p, to) * e

    x1 = move(e1, middle)
    x2 = move(noise_in(x1, tape.evaluate(x1, middle), middle), middle)
    e3 = noise_in(x2, tape.evaluate(x2, middle), middle)
    e2 = (x2 - middle.alpha / p.alpha * x) / _span(p, middle)  # as x2 holds it: that saves a register
    x3 = move(e3, q)
    most = tape.keep(move((e1 + 2 * e2 + 2 * e3) / 6, q))
    return most + _span(p, q) / 6 * noise_in(x3, tape.evaluate(x3, q), q)
