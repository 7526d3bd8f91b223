"""What a budget asks for and nobody measured yet, as a small sweep that fills it in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from fewstep.benchmark.findings import Findings
from fewstep.benchmark.measured import Measured
from fewstep.benchmark.planner import Budget, fits
from fewstep.benchmark.sweep import Sweep

SAMPLERS, GRIDS = ("ddim", "dpmpp-2m", "unipc-3", "deis-3"), ("trailing", "quadratic", "karras")
"""What is measured quickly: one sampler of each family that leads somewhere in few steps."""
FIRST = (4, 8, 12, 20)
"""Rows to begin with where nothing is known."""
MORE = (30, 50)
"""Where 20 do not reach a quality."""
MOST = 50
"""Rows beyond which nothing is measured quickly: errors are small by then, and measuring takes long."""
NEAR = 0.1
"""Share of the rows by which what is measured may be below what should fit."""


class Missing(NamedTuple):
    """What to measure, and why, in words: plans of so many `rows`, and `plans`, files of tuned ones."""

    rows: tuple[int, ...]
    plans: tuple[Path, ...]
    why: str

    def sweep(self, guidance: float | None, force: bool) -> Sweep:
        """As a sweep of a bench, at a guidance scale."""
        return Sweep(SAMPLERS, GRIDS, rows=self.rows, guidance=(guidance,), plans=self.plans, force=force)


def missing(findings: Findings, budget: Budget, measure: str, cost: int = 1) -> Missing | None:
    """What the findings lack for a budget, where a row takes `cost` network evaluations; None where they have it.

    A budget of rows or evaluations lacks plans of just so many; one of milliseconds the most rows that should fit, by
    the usual seconds of one, and fewer than are known not to; a quality that nothing reaches, more rows. A figure that
    nothing has lacks all of them, and a plan that was not measured on the same noise lacks that.
    """
    known = [one for one in findings.measured if measure in one.figures and one.by == "bench"]
    most = budget.most_rows(cost)
    rows, why = _rows(known, budget, most)
    plans = tuple(findings.unmeasured)
    if not rows and not plans:
        return None
    if plans and not rows:
        rows = (min(most or FIRST[1], MOST),)
        why = f"{', '.join(map(str, plans))} is not measured on the same noise as others"
    return Missing(rows, plans, why)


def _rows(known: Sequence[Measured], budget: Budget, limit: int | None) -> tuple[tuple[int, ...], str]:
    """The rows of the plans to measure, and why."""
    untimed = budget.ms is not None and any(not one.timed for one in known)
    if budget.ms is not None:
        known = [one for one in known if one.timed]
    here = " on this machine with as many threads" if untimed else ""
    counts = [one.plan.rows for one in known]
    if limit is not None:
        wanted, most = min(limit, MOST), max(counts, default=0)
        if wanted not in counts and not most > wanted == MOST:
            return (wanted,), f"nothing is measured with {wanted} rows{here}"
    if not known:
        return FIRST, f"nothing is measured{here}"
    if budget.ms is not None:
        fitting = _fitting(known, budget.ms, limit or MOST)
        why = f"about {fitting} rows fit into {budget.ms:g} ms, and nothing near is measured"
        return ((fitting,), why) if fitting else ((), "")
    if budget.quality is None or budget.is_counted:
        return (), ""
    if any("quality" in one.figures and one.figures["quality"].value >= budget.quality for one in known):
        return (), ""
    more = tuple(count for count in (*FIRST, *MORE) if count > max(counts))
    return more, f"nothing reaches a quality of {budget.quality:g} with {max(counts)} rows"


def _fitting(known: Sequence[Measured], ms: float, limit: int) -> int:
    """The most rows that should fit into the milliseconds; 0 where so many, or about so many, are known to."""
    each = [1e3 * one.seconds.value / one.plan.rows for one in known]
    usual = max(math.floor(ms / median(each)), 1 if min(each) <= ms else 0)
    fit = max((one.plan.rows for one in known if fits(one, Budget(ms=ms))), default=0)
    beyond = [one.plan.rows - 1 for one in known if one.plan.rows > fit]
    wanted = min(usual, limit, MOST, *beyond)
    return wanted if wanted > fit * (1 + NEAR) else 0
