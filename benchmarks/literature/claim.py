"""A claim as a value: its words, its source, how it is measured, and the rule that turns figures into a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

HOLDS, PART, FAILS, OPEN, MISSING = (
    "holds",
    "holds in part",
    "does not hold here",
    "not decided",
    "not measurable with what ships",
)
"""All verdicts, see `verdict`."""


class Interval(NamedTuple):
    """A figure with the ends of its bootstrap interval over images, of 95% unless a claim says otherwise."""

    value: float
    low: float
    high: float

    def above(self, bound: float) -> bool | None:
        """Whether the figure is above `bound`: None where the interval holds it."""
        return True if self.low > bound else False if self.high < bound else None

    def below(self, bound: float) -> bool | None:
        """Whether the figure is below `bound`: None where the interval holds it."""
        return True if self.high < bound else False if self.low > bound else None

    def within(self, low: float, high: float) -> bool | None:
        """Whether the whole interval lies in [low, high]: False where it lies outside, None where it crosses an end."""
        if low <= self.low and self.high <= high:
            return True
        return False if self.high < low or self.low > high else None

    def __str__(self) -> str:
        return f"{number(self.value)} ({number(self.low)} to {number(self.high)})"


Figures = Mapping[str, Interval]
"""The figures of one model that a verdict rests on, by name."""
Cell = str | int | float | Interval | None
"""What a table holds; None is an empty cell."""


class Found(NamedTuple):
    """What was measured on one model: rows for the page, and the figures for the verdict."""

    rows: Sequence[Sequence[Cell]]
    figures: Figures


class Check(NamedTuple):
    """One condition of a claim's rule: the words with their figure, and whether it is met; None is not decided."""

    words: str
    met: bool | None


@dataclass(frozen=True)
class Claim:
    """What is said, and how it is looked at.

    Attributes:
        key: names the claim in the file of figures and in links.
        title: the claim in a few words.
        says: the claim in our own words.
        sources: the papers, with their arXiv numbers.
        method: what is measured, and how.
        rule: when it holds, in words; `checks` does what they say for the figures of one model.
        columns: of the table, after the model's name.
        models: which it is measured on, of `literature.subject.MODELS`.
        measure: (model, images) to what was found.
        here: what is measured in a phrase, for the table at the top; `short` is its figures on one model.
        missing: what of the claim cannot be measured with what ships, and why; empty where all can.
    """

    key: str
    title: str
    says: str
    sources: tuple[str, ...]
    method: str
    rule: str
    columns: tuple[str, ...]
    models: tuple[str, ...]
    measure: Callable[[str, int], Found]
    checks: Callable[[Figures], list[Check]]
    short: Callable[[Figures], str]
    here: str = ""
    missing: str = ""


def verdict(checks: Sequence[Check]) -> str:
    """The word for a claim whose conditions came out so.

    It holds where all are met, in part where some are. Where none is met, it does not hold if one is surely not, and is
    not decided otherwise. Without conditions there was nothing to measure.
    """
    if not checks:
        return MISSING
    outcomes = [check.met for check in checks]
    if all(outcomes):
        return HOLDS
    if True in outcomes:
        return PART
    return FAILS if False in outcomes else OPEN


def numbers(figures: Figures, names: Iterable[str] | None = None) -> str:
    """Some figures, or all, without their intervals."""
    return ", ".join(number(figures[name].value) for name in names or figures)


def number(value: float) -> str:
    """Three digits, without an exponent where it is from a ten-thousandth to a million."""
    if value == 0 or not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}"
    whole = f"{value:.3g}"
    return whole if "e" not in whole else f"{float(whole):.0f}"


def _rounded(value: float) -> float:
    """To six digits, which is more than a bootstrap tells."""
    return float(f"{value:.6g}")


def plain(value: Any) -> Any:
    """A cell or figure as JSON holds it."""
    if isinstance(value, Interval):
        return dict(zip(value._fields, map(_rounded, value), strict=True))
    return _rounded(value) if isinstance(value, float) else value


def read(value: Any) -> Any:
    """The inverse of `plain`."""
    return Interval(**value) if isinstance(value, dict) else value
