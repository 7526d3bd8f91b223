"""An exactly invertible sampler: two registers that the reversed run recovers to rounding."""

from __future__ import annotations

from typing import Literal

from fewstep.core.errors import InvalidInput
from fewstep.core.tape import State, Tape, transfer
from fewstep.solvers.rungekutta import Path, coordinate


def belm(tape: Tape, *, path: Path = "auto", start: Literal["single", "pair"] = "single") -> tuple[State, State]:
    """O-BELM, a bidirectional explicit two-step method: Wang et al. 2024, arXiv 2410.07273, eq. 18.

    In the coordinate y(tau) of the Runge-Kutta solvers, with slope k, widths h1 = tau_p - tau_o and h2 = tau_q -
    tau_p,

        y_q = (h2 / h1)^2 y_o + (1 - (h2 / h1)^2) y_p + h2 (h1 + h2) / h1 k(y_p)

    which the same formula, run backwards, solves for y_o. The result is the pair (last state, the one before it).
    `start` says what the caller starts from: a `single` state, whose first step is DDIM's; or a `pair`, the result of
    a reversed run, in that order.
    """
    if start == "pair" and len(tape.points) < 3:
        raise InvalidInput("a run from a pair needs at least 2 steps, the first of which is already in the pair")
    space = coordinate(tape, path)
    older = tape.start()
    current = tape.start() if start == "pair" else older
    for i, (p, q) in enumerate(tape.steps()):
        if i == 0:
            if start == "single":  # of a pair the first step is made already
                current = transfer(older, tape.evaluate(older, p), p, q)
            continue
        o = tape.points[i - 1]
        h1, h2 = space.tau(p) - space.tau(o), space.tau(q) - space.tau(p)
        grow = (h2 / h1) ** 2
        y_o = tape.keep(older / space.scale(o))
        slope = space.slope(current, tape.evaluate(current, p), p)
        y_p = current / space.scale(p)
        older = current
        current = space.scale(q) * (grow * y_o + (1 - grow) * y_p + h2 * (h1 + h2) / h1 * slope)
    return current, older
