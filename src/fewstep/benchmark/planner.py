"""The choice among what was measured: the best within a budget, or the cheapest that is good enough.

Only what was measured is chosen; nothing is interpolated between step counts. Among those within the budget whose
error is less than `TIE` above the least, the cheapest is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from fewstep.benchmark.measured import Measured
from fewstep.core.errors import InvalidInput

OF_CONVERGED = ("error", "quality", "typical", "psnr")
"""Figures that compare with the converged images."""
TIE = 0.01
"""A share of the error: nobody sees it, and so it is not worth an evaluation."""


@dataclass(frozen=True)
class Budget:
    """What may be spent, or has to be reached; at least one of them, and all of those given hold.

    Attributes:
        rows: of the plan; nfe: network evaluations of an image, guidance counted; ms: milliseconds an image.
        quality: share of the variance of the converged images that is reached, at most 1.
    """

    rows: int | None = None
    nfe: int | None = None
    ms: float | None = None
    quality: float | None = None

    def __post_init__(self) -> None:
        if (self.rows, self.nfe, self.ms, self.quality) == (None,) * 4:
            raise InvalidInput("give a budget: rows, nfe, ms, quality, or several of them")
        for words, count in (("rows", self.rows), ("network evaluations", self.nfe)):
            if count is not None and (type(count) is not int or count < 1):
                raise InvalidInput(f"a budget of {words} is a whole number of at least 1, got {count!r}")
        if self.ms is not None and not (_is_number(self.ms) and 0 < self.ms < math.inf):
            raise InvalidInput(f"a budget of milliseconds is a finite number above 0, got {self.ms!r}")
        if self.quality is not None and not (_is_number(self.quality) and 0 < self.quality <= 1):
            raise InvalidInput(f"a quality is a share of the variance, above 0 and at most 1, got {self.quality!r}")

    @property
    def is_counted(self) -> bool:
        """Whether it limits the rows or the evaluations."""
        return self.rows is not None or self.nfe is not None

    def most_rows(self, cost: int) -> int | None:
        """The rows that it allows, 1 at least, where one takes `cost` evaluations; None where it limits none."""
        limits = [] if self.rows is None else [self.rows]
        limits += [] if self.nfe is None else [max(1, self.nfe // cost)]
        return min(limits, default=None)

    def __str__(self) -> str:
        words = [] if self.rows is None else [f"at most {self.rows} rows"]
        words += [] if self.nfe is None else [f"at most NFE {self.nfe}"]
        words += [] if self.ms is None else [f"at most {self.ms:g} ms an image"]
        words += [] if self.quality is None else [f"a quality of {self.quality:g} at least"]
        return " and ".join(words)


class Choice(NamedTuple):
    """What is chosen, and its neighbours; None where there is none.

    Attributes:
        chosen: within the budget.
        better: the cheapest one that is better than the chosen, beyond the budget.
        cheaper: the best of those that cost less.
        tied: the one with the least error within the budget, where the chosen is cheaper and as good up to `TIE`.
    """

    chosen: Measured
    better: Measured | None
    cheaper: Measured | None
    tied: Measured | None


def decide(measured: Sequence[Measured], budget: Budget, measure: str = "quality", why: str = "") -> Choice:
    """The best of those `measured` within the budget by the figure `measure`; with a quality, the cheapest that has it.

    Cost is milliseconds where these are limited, else evaluations where these are, else rows. For a quality the error
    decides, of which it is a function, so that plans without a variance of converged images may be chosen too. `why` is
    what is known of the reason where nothing has the figure.

    Raises:
        InvalidInput: nothing was measured, nothing has this figure or seconds, or nothing meets the budget; the
            message says what the least is.
    """
    known = judged(measured, measure, budget, why)
    within = [one for one in known if fits(one, budget)]
    if not within:
        raise InvalidInput(_unmet(known, budget))
    if budget.quality is not None:
        least = min(cost(one, budget)[0] for one in within)
        within = [one for one in within if cost(one, budget)[0] <= least]
    best = min(within, key=lambda one: (loss(one, measure), *cost(one, budget)))
    chosen = min((one for one in within if _as_good(one, best, measure)), key=lambda one: cost(one, budget))
    own = cost(chosen, budget)[0]
    better = [one for one in known if cost(one, budget)[0] > own and loss(one, measure) < loss(best, measure)]
    cheaper = [one for one in known if cost(one, budget)[0] < own]
    return Choice(
        chosen,
        min(better, key=lambda one: (cost(one, budget)[0], loss(one, measure)), default=None),
        min(cheaper, key=lambda one: (loss(one, measure), *cost(one, budget)), default=None),
        best if best is not chosen else None,
    )


def judged(measured: Sequence[Measured], measure: str, budget: Budget, why: str = "") -> list[Measured]:
    """Those with all figures that the budget and the measure ask for."""
    if not measured:
        raise InvalidInput("nothing is measured: run `fewstep bench`, or leave out --no-measure")
    known = [one for one in measured if deciding(measure, one) is not None]
    if not known:
        names = sorted({name for one in measured for name in one.figures})
        if not why and measure in OF_CONVERGED:
            why = (
                "samplers that draw noise have none, so leave out --no-measure, or run `fewstep bench` with one that "
                "draws none, such as ddim"
            )
        raise InvalidInput(
            f"no measurement has the figure {measure!r}: there are {', '.join(names)}; {why or 'take one of these'}"
        )
    if budget.ms is not None and not (known := [one for one in known if one.timed]):
        raise InvalidInput(
            "nothing was timed on this machine with as many threads, and seconds of another machine say nothing of "
            "this one: run `fewstep bench` here, or leave out --no-measure"
        )
    if budget.quality is not None and not (known := [one for one in known if "quality" in one.figures]):
        raise InvalidInput("no measurement has a quality: run `fewstep bench`, or leave out --no-measure")
    return known


def fits(one: Measured, budget: Budget) -> bool:
    """Whether a plan meets all of the budget. An interval that reaches beyond it does no harm: values count."""
    return (
        (budget.rows is None or one.plan.rows <= budget.rows)
        and (budget.nfe is None or one.nfe <= budget.nfe)
        and (budget.ms is None or 1e3 * one.seconds.value <= budget.ms)
        and (budget.quality is None or one.figures["quality"].value >= budget.quality)
    )


def cost(one: Measured, budget: Budget) -> tuple[float, ...]:
    """What a plan costs, what counts first."""
    seconds, rows = one.seconds.value, float(one.plan.rows)
    if budget.ms is not None:
        return seconds, rows, one.nfe
    return (rows, one.nfe, seconds) if budget.nfe is None else (one.nfe, rows, seconds)


def deciding(measure: str, *measured: Measured) -> str | None:
    """The name of the figure that compares plans: the measure, or the error in place of a quality that one lacks; None
    where one lacks that too.
    """
    names = [measure, "error"] if measure == "quality" else [measure]
    return next((name for name in names if all(name in one.figures for one in measured)), None)


def loss(one: Measured, measure: str) -> float:
    """Less is better. For a quality the error, of which it is a function where both are there."""
    name = "error" if measure == "quality" and "error" in one.figures else measure
    figure = one.figures[name]
    return -figure.value if figure.better == "more" else figure.value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_good(one: Measured, best: Measured, measure: str) -> bool:
    least = loss(best, measure)
    return loss(one, measure) <= least + TIE * abs(least)


def _unmet(known: Sequence[Measured], budget: Budget) -> str:
    """What nothing meets, and the least that is there, each limit by itself."""
    said = []
    if budget.rows is not None:
        least = min(known, key=lambda one: one.plan.rows)
        said.append(f"the least is {least.plan.rows} rows ({least.name})")
    if budget.nfe is not None:
        least = min(known, key=lambda one: one.nfe)
        said.append(f"the least is NFE {least.nfe:g} ({least.name})")
    if budget.ms is not None:
        least = min(known, key=lambda one: one.seconds.value)
        said.append(f"the least is {1e3 * least.seconds.value:.3g} ms an image ({least.name}, {least.plan.rows} rows)")
    if budget.quality is not None:
        limited = budget.is_counted or budget.ms is not None
        spendable = [one for one in known if limited and fits(one, replace(budget, quality=None))]
        most = max(spendable or known, key=lambda one: one.figures["quality"].value)
        where = " within the rest of the budget" if spendable else ""
        quality = most.figures["quality"].value
        said.append(f"the best quality{where} is {quality:.4f} ({most.name}, {most.plan.rows} rows)")
    return (
        f"nothing that was measured meets {budget}: {'; '.join(said)}. Allow more, or measure more with `fewstep bench`"
    )
