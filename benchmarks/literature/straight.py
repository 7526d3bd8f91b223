"""Flows whose paths are straight, and flows that are only trained as if they were."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import fewstep as fs
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Level
from fewstep.measure import Goal, converge
from literature import intervals
from literature.claim import Check, Claim, Figures, Found, Interval, number
from literature.quality import distances
from literature.speed import AS_WELL
from literature.subject import distances_on, plan

STEPS, MANY = (1, 2, 4, 6, 10, 25), 200
EXACT = 0.01
"""The share of the data's spread that counts as drawing as well."""
CENTRE, STD, COORDINATES = 1.0, 0.2, 8
"""Each coordinate of the data is -1 or 1 with noise around it."""
END, POINTS = 8.0, 40_001
"""Where the table of a transport ends, and how many points it has."""


class Coupled(fs.Denoiser):
    """The flow whose noise is coupled to the data by optimal transport: x = (1 - t) T(e) + t e in each coordinate.

    T takes the quantile of the noise to that of the data, so paths never cross, and each is straight. It is a table of
    `POINTS` points, linear between them. The estimate of the data is T(e), with the e that x belongs to.
    """

    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self.noise = torch.linspace(-END, END, POINTS, dtype=torch.float64)
        data = torch.linspace(-2 * CENTRE, 2 * CENTRE, 10 * POINTS, dtype=torch.float64)
        below = sum(torch.special.ndtr((data - centre) / STD) for centre in (-CENTRE, CENTRE)) / 2
        self.data = linear(torch.special.ndtr(self.noise), torch.as_tensor(below), data)

    def output(self, x: Tensor, level: Level) -> Tensor:
        """T(e) for states (B, ..)."""
        t = level.host[0][2]
        line = (1 - t) * self.data + t * self.noise
        return linear(x.double(), line, self.data).to(x)


def linear(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The values at some points of the line through (x, y), x increasing; constant outside."""
    right = torch.searchsorted(x, at.contiguous()).clamp(1, len(x) - 1)
    left = right - 1
    share = ((at - x[left]) / (x[right] - x[left]).clamp_min(1e-300)).clamp(0, 1)
    return y[left] + share * (y[right] - y[left])


class Independent(fs.Denoiser):
    """E[x0 | x] of the same data where the noise of each is drawn by itself, as flows are trained."""

    def __init__(self, schedule: Schedule):
        self.schedule = schedule

    def output(self, x: Tensor, level: Level) -> Tensor:
        """tanh of the two centres, and the noise around them."""
        alpha, sigma = level.host[0][1:]
        variance = alpha**2 * STD**2 + sigma**2
        near = CENTRE * torch.tanh(alpha * CENTRE * x / variance)
        return near + alpha * STD**2 / variance * (x - alpha * near)


def spread() -> float:
    """The standard deviation of a coordinate of the data."""
    return math.hypot(CENTRE, STD)


def couplings(images: int) -> Found:
    """Euler's error on the same data under both couplings, as a share of the data's spread."""
    rows, figures = [], {}
    schedule = fs.schedules.flow()
    for name, denoiser in (("by transport", Coupled(schedule)), ("at random", Independent(schedule))):
        own = fs.Problem.of(denoiser, (COORDINATES,), schedule, batch=1024)
        numbers = range(images)
        exact = converge(own.flow, numbers, Goal(steps=384)).solution
        for steps in STEPS:
            results = own.solve(fs.compile("euler", schedule=schedule, steps=steps, grid="trailing"), numbers)
            wrong = (results.double() - exact.double()).square().mean(dim=1).sqrt() / spread()
            share = intervals.mean(wrong)
            rows.append([f"8 coordinates, noise coupled {name}", steps, percent(share), None])
            figures[f"{name} {steps}"] = share
    return Found(rows, figures)


def percent(share: Interval) -> str:
    """A share of the spread."""
    if share.high < 1e-5:
        return "below 0.001% of the spread"
    return f"{share.value:.2%} ({share.low:.2%} to {share.high:.2%}) of the spread"


def straight(model: str, images: int) -> Found:
    """Euler in few steps."""
    if model == "couplings":
        return couplings(images)
    count = distances_on(model, images)
    last = distances(plan(model, "euler", MANY, "trailing"), model, count).pixels
    rows, figures = [], {}
    for steps in (*STEPS, MANY):
        found = distances(plan(model, "euler", steps, "trailing"), model, count).pixels
        times = None if steps == MANY else intervals.quotient(found, last)
        rows.append(["digits, noise at random", steps, f"distance {intervals.of(found)}", times])
        if times is not None:
            figures[f"distance {steps}"] = times
    return Found(rows, figures)


def straight_checks(figures: Figures) -> list[Check]:
    """As good as many steps, in 4 to 10."""
    if "by transport 4" in figures:
        return [
            Check(f"coupled {name}, the error in {n} steps is {percent(own)}", own.below(EXACT))
            for name, n in (("by transport", 4), ("at random", 10))
            for own in (figures[f"{name} {n}"],)
        ]
    times = figures["distance 10"]
    return [Check(f"in 10 steps the distance is {times} times that in {MANY}", times.below(AS_WELL))]


def straight_short(figures: Figures) -> str:
    """The main figure."""
    if "by transport 4" in figures:
        by, own = figures["by transport 1"].value, figures["at random 10"].value
        return f"error in 1 step if straight {by:.1%} of the spread, in 10 if not {own:.1%}"
    return f"distance in 10 over {MANY} steps {number(figures['distance 10'].value)}"


CLAIMS = (
    Claim(
        key="straight",
        title="Straight flows need 4 to 10 steps",
        says="Where the paths of a flow are straight, a few steps of Euler draw as well as many, even a single one.",
        sources=("Rectified flow, arXiv 2209.03003", "SD3, arXiv 2403.03206"),
        method=(
            "Two couplings of the same data, eight coordinates around -1 or 1. By transport each noise belongs to the "
            "data of its quantile, which makes paths exactly straight, as rectifying does in its limit. At random is "
            "how flows are first trained; their paths bend. Both denoisers are closed forms; the error is the root "
            "mean square distance to the converged solution. Beside them the mixture of digits on the flow schedule, "
            "coupled at random: its Fréchet distance to the data on the pixels."
        ),
        rule=(
            f"By transport in 4 steps and at random in 10, the error must be below {EXACT:.0%} of the data's spread. "
            f"The distance of the digits in 10 steps must be at most {AS_WELL:g} times that in {MANY}. All by "
            "the whole interval."
        ),
        columns=("data", "steps of Euler", "figure", f"times that in {MANY}"),
        models=("couplings", "flow"),
        measure=straight,
        checks=straight_checks,
        short=straight_short,
        missing="No network that was rectified ships, so what rectifying costs in quality is not measured.",
    ),
)
