"""Runge-Kutta methods on the probability-flow ODE, in a coordinate where a path towards fixed data is a straight line.

Two such coordinates are in use, and `path` chooses:

    sigma    y = x / alpha,            tau = sigma / alpha,             dy/dtau = eps          (EDM, k-diffusion)
    flow     y = x / (alpha + sigma),  tau = sigma / (alpha + sigma),   dy/dtau = eps - x0     (flow matching)

The first is the default, the second where alpha starts at 0 or the schedule is a flow. On a straight line every method
here is exact, so marginals are. A step that lowers tau more than WIDEST times, as the one to sigma = 0 does, is Euler's:
the later stages of a higher order would be weighted by that ratio.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.tape import Point, State, Tape
from fewstep.solvers.ddim import transfer

WIDEST = 1024.0


class Tableau(NamedTuple):
    """Butcher's table of an explicit method: nodes c, stages a (lower triangle), weights b."""

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]


TABLEAUS = {
    "heun": Tableau((0, 1), ((), (1,)), (1 / 2, 1 / 2)),
    "midpoint": Tableau((0, 1 / 2), ((), (1 / 2,)), (0, 1)),
    "ralston": Tableau((0, 2 / 3), ((), (2 / 3,)), (1 / 4, 3 / 4)),
    "rk3": Tableau((0, 1 / 3, 2 / 3), ((), (1 / 3,), (0, 2 / 3)), (1 / 4, 0, 3 / 4)),
    "rk4": Tableau((0, 1 / 2, 1 / 2, 1), ((), (1 / 2,), (0, 1 / 2), (0, 0, 1)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}


class Coordinate(NamedTuple):
    """One of the two coordinates above."""

    flow: bool

    def tau(self, p: Point) -> float:
        """The variable of integration."""
        return p.sigma / self.scale(p)

    def scale(self, p: Point) -> float:
        """x / y."""
        return p.alpha + p.sigma if self.flow else p.alpha

    def slope(self, x: State, data: State, p: Point) -> State:
        """dy / dtau from a network evaluation of x."""
        eps = (x - p.alpha * data) / p.sigma
        return eps - data if self.flow else eps

    def point(self, tape: Tape, tau: float) -> Point:
        """The point of the schedule where the variable of integration is `tau`."""
        ratio = tau / (1 - tau) if self.flow else tau
        return tape.point_at_lambda(-math.log(ratio))


def coordinate(tape: Tape, path: str) -> Coordinate:
    """The coordinate that `path` names, for the times on the tape."""
    if path not in ("auto", "sigma", "flow"):
        raise unknown_name("path", path, ["auto", "sigma", "flow"])
    no_data = any(p.alpha == 0 for p in tape.points)
    if path == "sigma" and no_data:
        raise InvalidInput("path 'sigma' divides by alpha, which is 0 at the noisiest time: use path 'flow' or 'auto'")
    return Coordinate(path == "flow" or (path == "auto" and (no_data or tape.schedule.kind == "flow")))


def euler(tape: Tape) -> State:
    """Euler's method, which is the same table in both coordinates, and that of DDIM with eta = 0."""
    x = tape.start()
    for p, q in tape.steps():
        x = transfer(x, tape.evaluate(x, p), p, q)
    return x


def runge_kutta(tape: Tape, *, tableau: str = "heun", path: str = "auto") -> State:
    """Heun (Karras et al. 2022, arXiv 2206.00364, algorithm 1), midpoint, Ralston, RK3 and the classical RK4."""
    if tableau not in TABLEAUS:
        raise unknown_name("tableau", tableau, TABLEAUS)
    c, a, b = TABLEAUS[tableau]
    space = coordinate(tape, path)
    x = tape.start()
    for p, q in tape.steps():
        start, end = space.tau(p), space.tau(q)
        if start > WIDEST * end:
            x = transfer(x, tape.evaluate(x, p), p, q)
            continue
        stages = [p, *(q if node == 1 else space.point(tape, start + node * (end - start)) for node in c[1:])]
        slope = space.slope(x, tape.evaluate(x, p), p)
        # Sums that the later stages and the result have gathered so far: they are held, the slopes are not.
        sums = [x / space.scale(p)] * len(c)
        for j in range(len(c)):
            weights = [*(later[j] for later in a[j + 1 :]), b[j]]
            sums = [
                y + (end - start) * w * slope if w else y for y, w in zip(sums[-len(weights) :], weights, strict=True)
            ]
            if j + 1 < len(c):
                for held in {id(y): y for y in sums[1:]}.values():
                    tape.keep(held)
                u = space.scale(stages[j + 1]) * sums[0]
                slope = space.slope(u, tape.evaluate(u, stages[j + 1]), stages[j + 1])
        x = space.scale(q) * sums[-1]
    return x


def dpm2(tape: Tape) -> State:
    """The midpoint method with its middle at the geometric mean of sigma / alpha: DPM-2 of k-diffusion.

    Karras et al. 2022, arXiv 2206.00364, appendix C.4, with the interval halved in log sigma as in DPM-Solver-2.
    """
    space = Coordinate(flow=False)
    x = tape.start()
    for p, q in tape.steps():
        data = tape.evaluate(x, p)
        if math.isinf(p.ratio) or p.ratio > WIDEST * q.ratio:
            x = transfer(x, data, p, q)
            continue
        middle = tape.point_at_lambda((p.lam + q.lam) / 2)
        y = tape.keep(x / p.alpha)
        u = transfer(x, data, p, middle)
        slope = space.slope(u, tape.evaluate(u, middle), middle)
        x = q.alpha * (y + (q.ratio - p.ratio) * slope)
    return x
