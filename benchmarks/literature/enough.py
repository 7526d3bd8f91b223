"""Where more steps bring no more: distances and adherence with more and more of them."""

from __future__ import annotations

from literature import intervals
from literature.claim import Check, Claim, Figures, Found, Interval, number
from literature.quality import distances, read_right
from literature.subject import distances_on, plan

BEYOND = (("ddim", 50, 200), ("dpmpp-2m", 25, 100))
"""A sampler, the steps beyond which nothing is to be gained, and as many as are tried."""
BEYOND_STEPS = {"ddim": (10, 25, 50, 100, 200), "dpmpp-2m": (10, 25, 50, 100)}
SCENES_STEPS = {"ddim": (10, 25, 50, 100), "dpmpp-2m": (10, 25, 50)}
NO_GAIN, POINTS = 1.1, 0.05
"""A distance that is so many times as large, and a share of right pictures that is so much smaller, is a gain left."""


def gain_beyond(model: str, images: int) -> Found:
    """Distances or adherence with more and more steps, and what is left to gain beyond 25 and 50."""
    if model == "scenes":
        return adherence_beyond(images)
    count = distances_on(model, images)
    rows, figures = [], {}
    for sampler, enough, most in BEYOND:
        last = distances(plan(model, sampler, most, "trailing"), model, count)
        for steps in BEYOND_STEPS[sampler]:
            found = distances(plan(model, sampler, steps, "trailing"), model, count)
            times = None if steps == most else intervals.quotient(found.pixels, last.pixels)
            rows.append([f"`{sampler}`", steps, f"distance {intervals.of(found.pixels)}", times])
            if steps == enough and times is not None:
                figures[f"{sampler} {steps} to {most}"] = times
    return Found(rows, figures)


def adherence_beyond(images: int) -> Found:
    """The share of right scenes."""
    rows, figures = [], {}
    for sampler, enough, _ in BEYOND:
        counts = SCENES_STEPS[sampler]
        right = {n: read_right(plan("scenes", sampler, n, "trailing"), images) for n in counts}
        for steps in counts:
            left = intervals.mean(right[counts[-1]] - right[steps]) if steps != counts[-1] else None
            rows.append([f"`{sampler}`", steps, f"right {percent(intervals.mean(right[steps]))}", left])
            if steps == enough and left is not None:
                figures[f"{sampler} {steps} to {counts[-1]}, right"] = left
    return Found(rows, figures)


def percent(share: Interval) -> str:
    """A share as people write it."""
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"


def gain_checks(figures: Figures) -> list[Check]:
    """Nothing more to gain."""
    checks = []
    for name, left in figures.items():
        if name.endswith("right"):
            words = f"{name.removesuffix(', right')} steps: {100 * left.value:+.0f} points of right pictures"
            checks.append(Check(f"{words} ({100 * left.low:+.0f} to {100 * left.high:+.0f})", left.below(POINTS)))
        else:
            checks.append(Check(f"{name} steps: the distance was {left} times the last", left.below(NO_GAIN)))
    return checks


def gain_short(figures: Figures) -> str:
    """What is left to gain: times the distance, or points of right pictures."""
    points = any(name.endswith("right") for name in figures)
    values = [f"{100 * left.value:+.0f}" if points else number(left.value) for left in figures.values()]
    return ", ".join(values) + (" points" if points else " times")


CLAIMS = (
    Claim(
        key="enough",
        title="No gain beyond 25 or 50 steps",
        says="More than about 50 steps of DDIM, or 25 of a solver of second order, do not make better images.",
        sources=("DDIM, arXiv 2010.02502", "DPM-Solver++, arXiv 2211.01095"),
        method=(
            "The Fréchet distance on the pixels, from the same noise at all step counts, and of scenes the share of "
            "pictures that are right in all that their prompt names. The last column is how many times the distance "
            "with most steps it is, or by how much the share with most steps is larger."
        ),
        rule=(
            f"There is no gain left where the distance is at most {NO_GAIN:g} times that with 200 steps (100 for "
            f"`dpmpp-2m`), or the share right at most {POINTS:.0%} below that with 100 (50), the whole interval."
        ),
        columns=("sampler", "steps", "figure", "against most steps"),
        models=("digits", "scenes", "mixture"),
        measure=gain_beyond,
        checks=gain_checks,
        here="left to gain after 50 steps of `ddim`, 25 of `dpmpp-2m`",
        short=gain_short,
    ),
)
