"""Runge-Kutta methods on the probability-flow ODE, in a coordinate where a path towards fixed data is a straight line.

Two such coordinates are in use, and `path` chooses:

    sigma    y = x / alpha,            tau = sigma / alpha,             dy/dtau = eps          (EDM, k-diffusion)
    flow     y = x / (alpha + sigma),  tau = sigma / (alpha + sigma),   dy/dtau = eps - x0     (flow matching)

The first is the default, the second where alpha starts at 0 or the schedule is a flow. On a straight line every method
here is exact, so marginals are. A step that lowers tau more than WIDEST times, as the one to sigma = 0 does, is
Euler's: the later stages of a higher order would be weighted by that ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from fewstep.core.errors import InvalidInput
from fewstep.core.schedule import Float
from fewstep.core.tape import Point, State, Tape, noise_in, transfer

Path = Literal["auto", "sigma", "flow"]
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
        eps = noise_in(x, data, p)
        return eps - data if self.flow else eps

    def point(self, tape: Tape, tau: float) -> Point:
        """The point of the schedule where the variable of integration is `tau`."""
        ratio = tau / (1 - tau) if self.flow else tau
        return tape.point_at_lambda(-math.log(ratio))


def coordinate(tape: Tape, path: str) -> Coordinate:
    """The coordinate that `path` names, for the times on the tape."""
    no_data = any(p.alpha == 0 for p in tape.points)
    if path == "sigma" and no_data:
        raise InvalidInput("path 'sigma' divides by alpha, which is 0 at the noisiest time: use path 'flow' or 'auto'")
    return Coordinate(path == "flow" or (path == "auto" and (no_data or tape.schedule.kind == "flow")))


def runge_kutta(tape: Tape, *, tableau: str = "heun", path: Path = "auto") -> State:
    """Heun (Karras et al. 2022, arXiv 2206.00364, algorithm 1), midpoint, Ralston, RK3 and the classical RK4."""
    space = coordinate(tape, path)
    x = tape.start()
    for p, q in tape.steps():
        start, end = space.tau(p), space.tau(q)
        data = tape.evaluate(x, p)
        if start > WIDEST * end:
            x = transfer(x, data, p, q)
            continue
        nodes = [start + node * (end - start) for node in TABLEAUS[tableau].c]
        stages = [q if node == end else space.point(tape, node) for node in nodes[1:]]
        targets = [*stages, q]
        rows = weights(TABLEAUS[tableau], nodes, end - start)
        table = [space.scale(s) * w for s, w in zip(targets, rows, strict=True)]
        # What the later stages and the result have gathered so far.
        sums = [transfer(x, data, p, s) - w.sum() * data for s, w in zip(targets, table, strict=True)]
        for j, s in enumerate(stages):
            u, *sums = sums
            if len(sums) <= 2:  # more of them would take more registers than x and data, which all begin with
                for later in sums:
                    tape.keep(later)
            data = tape.evaluate(u, s)
            sums = [y + w[j] * data for y, w in zip(sums, table[j + 1 :], strict=True)]
        (x,) = sums
    return x


def weights(tableau: Tableau, nodes: Sequence[float], h: float) -> Float:
    """W of y_j = (y on the straight line) + sum_i W_ji (D_i - D_1).

    Its rows are the stages from the second on and the result; its columns are i = 2, 3 ..

    With slopes k_j = (y_j - D_j) / tau_j, the deviations k_j - k_1 are (D_1 - D_j + h sum_i a_ji (k_i - k_1)) / tau_j.
    """
    m = len(nodes)
    rows = np.zeros((m, m))
    deviations = np.zeros((m, m))
    for j in range(1, m):
        rows[j - 1] = h * np.array(tableau.a[j]) @ deviations[:j]
        deviations[j] = rows[j - 1] / nodes[j]
        deviations[j, j] -= 1 / nodes[j]
    rows[-1] = h * np.array(tableau.b) @ deviations
    return rows[:, 1:]
