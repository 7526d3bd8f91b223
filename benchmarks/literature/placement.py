"""Where the steps go: more of them at low noise or at high noise, at the same count."""

from __future__ import annotations

from literature import intervals
from literature.claim import Check, Claim, Figures, Found, number, numbers
from literature.solvers import ERROR
from literature.subject import converged, errors, judged, plan

STEPS, BIASES, SAMPLERS = 10, (-2.0, -1.0, 0.0, 1.0, 2.0), ("ddim", "dpmpp-2m")
BASES = {"trailing": "even in time", "exponential": "even in lambda"}
JUDGED = "dpmpp-2m"


def placement(model: str, images: int) -> Found:
    """Errors with steps moved to high noise (bias below 0) and to low noise (above 0)."""
    count = judged(model, images)
    rows, figures = [], {}
    for base, words in BASES.items():
        whole = {"grid_integer": False} if base == "trailing" else {}
        for sampler in SAMPLERS:
            wrong = {
                bias: errors(plan(model, sampler, STEPS, base, grid_bias=bias, **whole), model, count)
                for bias in BIASES
            }
            both = intervals.ratio(wrong[-1.0], wrong[1.0], converged(model, count).error)
            if sampler == JUDGED:
                figures[words] = both
            rows.append([words, f"`{sampler}`", *(number(intervals.typical(wrong[b]).value) for b in BIASES), both])
    return Found(rows, figures)


def placement_checks(figures: Figures) -> list[Check]:
    """Low noise is the better place."""
    return [
        Check(f"steps {words}: with bias -1 the error is {times} times that with bias 1", times.above(1.0))
        for words, times in figures.items()
    ]


CLAIMS = (
    Claim(
        key="placement",
        title="More of the steps belong at low noise",
        says=(
            "Errors made at low noise count most, so steps should be shortest there. For high resolution others say "
            "the opposite, and shift the steps to high noise."
        ),
        sources=("EDM, arXiv 2206.00364, section 3", "the opposite: SD3, arXiv 2403.03206, section 5.3.2"),
        method=(
            f"{ERROR} {STEPS} steps, even in time or in lambda, moved by the grid's `bias`: 1 and 2 put more of them "
            "at low noise, -1 and -2 more at high noise. The last column is the error with bias -1 over that with 1."
        ),
        rule=f"For both even grids, `{JUDGED}` must have surely less error with bias 1 than with bias -1.",
        columns=("from steps", "sampler", *(f"bias {bias:g}" for bias in BIASES), "bias -1 over 1"),
        models=("digits", "scenes", "mixture", "flow"),
        measure=placement,
        checks=placement_checks,
        here="error at high over low noise, steps even in time, in lambda",
        short=numbers,
    ),
)
