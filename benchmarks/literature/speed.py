"""Fewer steps than a thousand: DDIM and DPM-Solver."""

from __future__ import annotations

from literature import intervals
from literature.claim import Check, Claim, Figures, Found
from literature.quality import distances
from literature.subject import distances_on, plan

AS_WELL = 2.0
"""Times the distance of DDPM in 1000 steps that still counts as drawing as well: see `RULE`."""
TRAIN = 1000
"""Steps of training and of DDPM."""
COLUMNS = ("sampler", "evaluations", "distance, pixels", "times that of `ddpm`, 1000", "distance, classifier")
METHOD = (
    "The Fréchet distance to the data, on the 64 pixels and on the features of the shipped classifier; real digits are "
    "the data of the digits, fresh draws that of the mixture. The verdict takes the pixels: what few steps change "
    "stands out there twice as clearly from the noise of the sample."
)
RULE = (
    f"As well means at most {AS_WELL:g} times the distance of DDPM in 1000 steps, the whole interval. The DDIM paper "
    "itself (table 1, CIFAR-10, FID) has 1.3 times in 100 steps and 1.5 times in 50; the rule leaves room for a sample."
)
DDIM, DDPM = (100, 50, 20, 10), (1000, 100, 50)
SOLVERS = (
    ("dpm-fast", 20, "exponential"),
    ("dpm-fast", 15, "exponential"),
    ("dpm-fast", 10, "exponential"),
    ("dpm-2m", 20, "exponential"),
    ("dpm-2m", 10, "exponential"),
    ("dpmpp-2m", 20, "exponential"),
    ("dpmpp-2m", 10, "exponential"),
)
"""The grid is that of the paper, even in lambda."""


def speed(model: str, images: int, plans: tuple[tuple[str, int, str], ...]) -> Found:
    """Distances of plans, and how many times that of DDPM in 1000 steps they are."""
    count = distances_on(model, images)
    usual = distances(plan(model, "ddpm", TRAIN, "trailing"), model, count)
    rows, figures = [], {}
    for sampler, steps, grid in plans:
        own = plan(model, sampler, steps, grid)
        found = distances(own, model, count)
        times = None if (sampler, steps) == ("ddpm", TRAIN) else intervals.quotient(found.pixels, usual.pixels)
        rows.append(
            [f"`{sampler}`", len(own.rows), intervals.of(found.pixels), times, intervals.of(found.classes)],
        )
        if times is not None:
            figures[f"{sampler} {steps}"] = times
    return Found(rows, figures)


def ddim(model: str, images: int) -> Found:
    """DDPM and DDIM, and DDPM in as few steps as DDIM."""
    plans = tuple(("ddpm", n, "trailing") for n in DDPM) + tuple(("ddim", n, "trailing") for n in DDIM)
    found = speed(model, images, plans)
    count = distances_on(model, images)
    figures = dict(found.figures)
    for steps in (100, 50):
        both = [distances(plan(model, sampler, steps, "trailing"), model, count) for sampler in ("ddpm", "ddim")]
        figures[f"ddpm over ddim {steps}"] = intervals.quotient(both[0].pixels, both[1].pixels)
    return Found(found.rows, figures)


def solvers(model: str, images: int) -> Found:
    """The solvers of the two papers of DPM-Solver."""
    return speed(model, images, (("ddpm", TRAIN, "trailing"), *SOLVERS))


def as_well(figures: Figures, name: str) -> Check:
    """Whether a plan draws as well as DDPM in 1000 steps."""
    times = figures[name]
    return Check(f"`{name.split()[0]}` in {name.split()[1]} steps: {times} times the distance", times.below(AS_WELL))


def ddim_checks(figures: Figures) -> list[Check]:
    """As well in 100 and in 50 steps; and DDPM itself cannot do the same."""
    checks = [as_well(figures, f"ddim {steps}") for steps in (100, 50)]
    worse = figures["ddpm over ddim 50"]
    return [*checks, Check(f"`ddpm` in 50 steps has {worse} times the distance of `ddim` in 50", worse.above(1.0))]


def solver_checks(figures: Figures) -> list[Check]:
    """As well in 20 and in 10 evaluations, by the better of single steps and multistep."""
    best = [min(("dpm-fast", "dpm-2m"), key=lambda sampler: figures[f"{sampler} {n}"].value) for n in (20, 10)]
    return [as_well(figures, f"{sampler} {n}") for sampler, n in zip(best, (20, 10), strict=True)]


def fewest(figures: Figures, samplers: tuple[str, ...]) -> str:
    """How many times fewer steps than DDPM these samplers need at best, for the table at the top."""
    tried = [name.split() for name, times in figures.items() if times.below(AS_WELL)]
    good = [int(steps) for sampler, steps in (one for one in tried if len(one) == 2) if sampler in samplers]
    return f"{min(good)} steps, {TRAIN // min(good)} times fewer" if good else "none tried"


CLAIMS = (
    Claim(
        key="ddim",
        title="DDIM needs 10 to 20 times fewer steps than DDPM",
        says="DDIM draws in 50 to 100 steps about as well as DDPM does in 1000, and DDPM in so few steps does not.",
        sources=("DDPM, arXiv 2006.11239", "DDIM, arXiv 2010.02502"),
        method=METHOD,
        rule=RULE + " In 50 steps the distance of DDPM must be surely larger than that of DDIM.",
        columns=COLUMNS,
        models=("digits", "mixture"),
        measure=ddim,
        checks=ddim_checks,
        here="as well as 1000 of DDPM in",
        short=lambda figures: fewest(figures, ("ddim",)),
        missing="The scenes are left out: a thousand guided steps of a hundred pictures take nine minutes of a core.",
    ),
    Claim(
        key="dpm-solver",
        title="DPM-Solver needs 50 to 100 times fewer",
        says="Solvers that integrate the linear part exactly draw in 10 to 20 evaluations as well as DDPM in 1000.",
        sources=("DPM-Solver, arXiv 2206.00927", "DPM-Solver++, arXiv 2211.01095"),
        method=METHOD + " The grid is even in lambda, as in the paper.",
        rule=RULE + " In 20 and in 10 evaluations the better of `dpm-fast` and `dpm-2m` counts.",
        columns=COLUMNS,
        models=("digits", "mixture"),
        measure=solvers,
        checks=solver_checks,
        here="as well as 1000 of DDPM in",
        short=lambda figures: fewest(figures, ("dpm-fast", "dpm-2m", "dpmpp-2m")),
        missing="The scenes are left out, as above.",
    ),
)
