"""From what an image may cost to the rows of a plan: network evaluations, or milliseconds on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from fewstep.core.errors import InvalidInput
from fewstep.measure.latency import cost
from fewstep.tuning.problem import Problem

LEAST, MOST = 2, 32
"""Rows that can be tuned for; a table of N rows holds N states."""
PROBES = (2, 6)
"""Rows of the two plans whose difference tells what a row costs, and what comes on top of all rows."""
REPEATS = 3


class RowBudget(NamedTuple):
    """What a plan may cost: its rows, which are `nfe` evaluations of an image; where they were measured, in `ms`."""

    rows: int
    nfe: float
    ms: float | None = None


def budget_of(
    problem: Problem, rows: int | None = None, nfe: float | None = None, ms: float | None = None
) -> RowBudget:
    """The budget from the one number that is given; its rows are guided, where the problem is under guidance.

    Raises:
        InvalidInput: unless there is one, and for counts that are out of range or that rows do not use up.
    """
    given = {name: value for name, value in (("rows", rows), ("nfe", nfe), ("ms", ms)) if value is not None}
    if len(given) != 1:
        raise InvalidInput(f"give exactly one of rows, nfe and ms, got {' and '.join(given) or 'none'}")
    if ms is not None:
        rows, ms = fitting(problem.drawn, problem.batch, ms, device=problem.device)
    elif nfe is not None:
        rows = _rows_at(problem, nfe)
    if type(rows) is not int or not LEAST <= rows <= MOST:
        raise InvalidInput(f"rows must be a whole number from {LEAST} to {MOST}, got {rows!r}")
    return RowBudget(rows, _evaluations(problem, rows), ms)


def _evaluations(problem: Problem, rows: int) -> float:
    """Of the network for an image in so many rows, as they are counted."""
    return problem.solve_counted(problem.untuned(rows), range(1))[1]


def _rows_at(problem: Problem, nfe: float) -> int:
    """The rows that take so many evaluations."""
    if type(nfe) is not int or nfe < LEAST:
        raise InvalidInput(f"nfe must be a whole number of at least {LEAST}, got {nfe!r}")
    each = _evaluations(problem, LEAST) / LEAST
    if nfe % each:
        near = each * (nfe // each)
        raise InvalidInput(
            f"a row of {problem.name} costs {each:g} evaluations, and {nfe} is not a multiple of that: give "
            f"nfe={near:g} or {near + each:g}"
        )
    return int(nfe / each)


def fitting(
    run: Callable[[int], Any],
    images: int,
    ms: float,
    *,
    device: torch.device | str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[int, float]:
    """The largest number of rows from 2 to 32 whose images take at most `ms` milliseconds each, and what they took.

    Args:
        run: draws `images` images in so many rows, as they are to be drawn: in batches, with guidance, decoded.

    Raises:
        InvalidInput: where not even 2 rows fit; it says what they take.
    """
    if not ms > 0 or images < 1:
        raise InvalidInput(f"the time of an image is above 0 and images are at least 1, got {ms!r} ms and {images!r}")
    known: dict[int, float] = {}

    def taken(rows: int) -> float:
        if rows not in known:
            seconds = cost(lambda: run(rows), device=device, repeats=REPEATS, warmup=1, clock=clock).seconds.value
            known[rows] = 1000 * seconds / images
        return known[rows]

    low, high = PROBES
    each = max((taken(high) - taken(low)) / (high - low), 1e-9)
    rows = int(min(MOST, max(LEAST, low + (ms - taken(low)) / each)))
    while rows > LEAST and taken(rows) > ms:
        rows -= 1
    if taken(rows) > ms:
        raise InvalidInput(
            f"no plan meets {ms:g} ms an image here: the least, {LEAST} rows, takes {taken(LEAST):.3g} ms; give "
            "more, a larger batch, or guidance 1, which halves the evaluations"
        )
    return rows, taken(rows)
