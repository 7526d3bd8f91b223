"""What a budget asks for and nobody measured yet, as a small sweep that fills it in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from fewstep.benchmark import Sweep
from fewstep.benchmark.choice.candidate import Candidate
from fewstep.benchmark.choice.planner import Budget, fits
from fewstep.benchmark.choice.results import Results

SAMPLERS, GRIDS = ("ddim", "dpmpp-2m", "unipc-3", "deis-3"), ("trailing", "quadratic", "karras")
"""What is measured quickly: one sampler of each family that leads somewhere in few steps."""
FIRST = (4, 8, 12, 20)
"""Evaluations to begin with where nothing is known."""
MORE = (30, 50)
"""Where 20 do not reach a quality."""
MOST = 50
"""Evaluations beyond which nothing is measured quickly: errors are small by then, and measuring takes long."""
NEAR = 0.1
"""Share of the evaluations by which what is measured may be below what should fit."""


class Need(NamedTuple):
    """What to measure, and why, in words. `plans` are files of tuned plans."""

    nfe: tuple[int, ...]
    plans: tuple[Path, ...]
    why: str

    def sweep(self, guidance: float | None, force: bool) -> Sweep:
        """As a sweep of a bench, at a guidance scale."""
        return Sweep(SAMPLERS, GRIDS, nfe=self.nfe, guidance=(guidance,), plans=self.plans, force=force)


def lacking(results: Results, budget: Budget, measure: str) -> Need | None:
    """What the results lack for a budget; None where they have it.

    A budget of evaluations lacks its own count; one of milliseconds the most evaluations that should fit, by the usual
    seconds of one, and fewer than are known not to; a quality that nothing reaches, more evaluations. A figure that no
    row has lacks all counts, and a plan that was not measured on the same noise lacks that.
    """
    known = [one for one in results.candidates if measure in one.figures and one.source.startswith("bench")]
    counts, why = _counts(known, budget)
    plans = tuple(results.unmeasured)
    if not counts and not plans:
        return None
    if plans and not counts:
        counts = (min(budget.nfe or FIRST[1], MOST),)
        why = f"{', '.join(map(str, plans))} is not measured on the same noise as others"
    return Need(counts, plans, why)


def _counts(known: Sequence[Candidate], budget: Budget) -> tuple[tuple[int, ...], str]:
    """Evaluations to measure, and why."""
    untimed = budget.ms is not None and any(one.seconds is None for one in known)
    if budget.ms is not None:
        known = [one for one in known if one.seconds is not None]
    here = " on this machine with as many threads" if untimed else ""
    if budget.nfe is not None:
        wanted, most = min(budget.nfe, MOST), max((one.nfe for one in known), default=0)
        if not any(one.nfe == wanted for one in known) and not most > wanted == MOST:
            return (wanted,), f"nothing is measured at {wanted} evaluations{here}"
    if not known:
        return FIRST, f"nothing is measured{here}"
    if budget.ms is not None:
        fitting = _fitting(known, budget)
        if not fitting:
            return (), ""
        return (fitting,), f"about {fitting} evaluations fit into {budget.ms:g} ms, and nothing near is measured"
    if budget.quality is None or budget.nfe is not None:
        return (), ""
    if any("quality" in one.figures and one.figures["quality"].value >= budget.quality for one in known):
        return (), ""
    most = max(one.nfe for one in known)
    more = tuple(count for count in (*FIRST, *MORE) if count > most)
    return more, f"nothing reaches a quality of {budget.quality:g} in {most} evaluations"


def _fitting(known: Sequence[Candidate], budget: Budget) -> int:
    """The most evaluations that should fit into the milliseconds; 0 where so many, or about so many, are known to."""
    assert budget.ms is not None
    each = [1e3 * one.seconds.value / one.nfe for one in known if one.seconds is not None]
    usual = max(math.floor(budget.ms / median(each)), 1 if min(each) <= budget.ms else 0)
    fit = max((one.nfe for one in known if fits(one, Budget(ms=budget.ms))), default=0)
    beyond = [one.nfe - 1 for one in known if one.nfe > fit]
    wanted = min(usual, budget.nfe or MOST, MOST, *beyond)
    return wanted if wanted > fit * (1 + NEAR) else 0
