"""Runs every case of every peer against ours, and writes the outcome as docs/conformance.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

import fewstep as fs
from fewstep.core.impulse import impulse
from fewstep.core.plan import Plan

from .catalogue import Ours, ours_for, peers, plan_for
from .departures import Departure, departure_of
from .peers import Peer, Response

BARS = {"float64": 1e-9, "float32": 1e-5}
CANCELLING = ("KDPM2AncestralDiscrete", "dpm_2_ancestral")
"""These subtract squares of nearly equal sigmas, which costs them three digits also in float64."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """One case: the largest difference of the two tables, what was asked for, and the departure that covers it, if any."""

    peer: Peer
    ours: Ours | None
    difference: float
    bound: float
    departure: Departure | None
    error: str = ""

    @property
    def ok(self) -> bool:
        """As it should be: equal tables, or a departure that really shows, so that one that is gone is noticed."""
        if self.departure and self.departure.kind in ("error", "guard"):
            return self.difference > 100 * self.bound
        return self.ours is None or self.difference < self.bound


def verdicts() -> Iterator[Verdict]:
    for peer in peers():
        yield verdict(peer)


def verdict(peer: Peer) -> Verdict:
    """Compare one peer with ours."""
    departure, ours = departure_of(peer), ours_for(peer)
    if ours is None:
        return Verdict(peer, None, float("nan"), 0.0, departure)
    bound = BARS[peer.precision]
    if departure and departure.kind == "rounding":
        bound = departure.bound
    elif peer.precision == "float64":
        name = peer.settings.get("scheduler") or peer.settings["function"]
        bound = 1e-10 if name in CANCELLING else 1e-12
    table = _without_idle_start(peer.response())
    try:
        plan = plan_for(peer, ours, table)
    except fs.InvalidInput as error:
        return Verdict(peer, ours, float("inf"), bound, departure, str(error))
    return Verdict(peer, ours, difference(table, plan), bound, departure)


def difference(table: Response, plan: Plan) -> float:
    """Largest difference of two tables and of the levels that the network is evaluated at.

    Each state is a row, and differences are relative to its largest coefficient where that is above 1. The start counts
    in units of its noise. Noise below the bar has no column in either table. Tables of different shapes (evaluations,
    draws of noise) are infinitely far apart.
    """
    response = impulse(plan)
    heard = np.abs(response.states).max(axis=0) > BARS[table.precision]
    heard[: response.noise.start] = True
    theirs, ours = table.states, response.states[:, heard]
    if theirs.shape != ours.shape:
        return float("inf")
    unit = np.ones(theirs.shape[1])
    unit[0] = max(1.0, float(np.hypot(*table.levels[0])))
    levels = np.array([*((row.alpha, row.sigma) for row in plan.rows), plan.exit])
    theirs = np.hstack([theirs * unit, table.levels])
    ours = np.hstack([ours * unit, levels])
    return float((np.abs(theirs - ours) / np.maximum(1.0, np.abs(theirs).max(axis=1, keepdims=True))).max())


def _without_idle_start(table: Response) -> Response:
    """The table without a first evaluation that has no effect: DDIMInverse begins with a step from a level to itself."""
    first, second = np.hstack([table.states, table.levels])[:2]
    if np.abs(first - second).max() > BARS[table.precision]:
        return table
    return replace(
        table,
        inputs=np.delete(table.inputs[1:], 1, axis=1),
        final=np.delete(table.final, 1),
        times=table.times[1:],
        alphas=table.alphas[1:],
        sigmas=table.sigmas[1:],
        scales=table.scales[1:],
    )
