"""Samplers that draw noise on the way against those that do not: diversity, and the churn of EDM."""

from __future__ import annotations

import math

from literature import intervals
from literature.claim import Check, Claim, Figures, Found, numbers
from literature.quality import distances, diversities, drawn, labels_of, recall, reference
from literature.subject import distances_on, plan

FEW, CONVERGED = 50, {"ddpm": 1000, "ddim": 200}


def diversity(model: str, images: int) -> Found:
    """How far apart images are, with DDPM and DDIM in few and in many steps, and in the data."""
    count, data = distances_on(model, images), reference(model)
    labels = labels_of(model, count)
    rows, figures, kept = [], {}, {}
    for sampler, steps in [(s, n) for s in ("ddpm", "ddim") for n in (10, FEW, CONVERGED[s])]:
        pictures = drawn(plan(model, sampler, steps, "trailing"), model, count)
        kept[sampler, steps] = diversities(pictures, labels)
        rows.append(
            [f"`{sampler}`", steps, intervals.averaged(kept[sampler, steps]), recall(pictures, model)],
        )
    rows.append(["data", "", intervals.averaged(diversities(data.images, data.labels)), None])
    for name, steps in (("few", (FEW, FEW)), ("many", (CONVERGED["ddim"], CONVERGED["ddpm"]))):
        figures[name] = intervals.averaged_quotient(kept["ddim", steps[0]], kept["ddpm", steps[1]])
    return Found(rows, figures)


def diversity_checks(figures: Figures) -> list[Check]:
    """Less diverse at equal steps, and where both are converged."""
    few, many = figures["few"], figures["many"]
    return [
        Check(f"in {FEW} steps each, DDIM has {few} times the diversity of DDPM", few.below(1.0)),
        Check(f"in many steps, DDIM has {many} times that of DDPM", many.below(1.0)),
    ]


EVALUATIONS = (17, 35, 49)
"""Of Heun in 9, 18 and 25 steps: before those of the claim, and two within them."""
AMOUNTS = {"none": 0.0, "little": 0.1, "medium": 0.2, "most": math.sqrt(2) - 1}
"""By how much churn raises the noise before a step, s_churn over the steps; EDM allows no more."""
SURE = 1 - 0.05 / (len(AMOUNTS) - 1)
"""Of an interval, as the best of three amounts is looked for."""


def churn(model: str, images: int) -> Found:
    """Distances with each amount of churn."""
    count = distances_on(model, images)
    rows, figures = [], {}
    for evaluations in EVALUATIONS:
        steps = (evaluations + 1) // 2
        found = {
            name: distances(plan(model, "edm", steps, "karras", s_churn=amount * steps), model, count).pixels
            for name, amount in AMOUNTS.items()
        }
        rows.append([evaluations, *(intervals.of(found[name]) for name in AMOUNTS)])
        for name in list(AMOUNTS)[1:]:
            figures[f"{evaluations} {name}"] = intervals.quotient(found[name], found["none"], SURE)
    return Found(rows, figures)


def best_amount(figures: Figures, evaluations: int) -> str:
    """The name of the figure with the least distance."""
    return min((f"{evaluations} {name}" for name in list(AMOUNTS)[1:]), key=lambda name: figures[name].value)


def churn_checks(figures: Figures) -> list[Check]:
    """No amount brings images nearer to the data in few evaluations, and some amount does in more."""
    few = best_amount(figures, EVALUATIONS[0])
    words = f"at {EVALUATIONS[0]} evaluations the best amount ({few.split()[1]}) has {figures[few]} times the distance"
    checks = [Check(f"{words} of none", figures[few].above(1.0))]
    for evaluations in EVALUATIONS[1:]:
        name = best_amount(figures, evaluations)
        words = (
            f"at {evaluations} evaluations the best amount ({name.split()[1]}) has {figures[name]} times the distance"
        )
        checks.append(Check(f"{words} of none", figures[name].below(1.0)))
    return checks


CLAIMS = (
    Claim(
        key="diversity",
        title="Deterministic samplers draw less diverse images",
        says="A sampler that draws no noise on the way gives images that differ less from one another than DDPM's.",
        sources=("DDPM, arXiv 2006.11239", "DDIM, arXiv 2010.02502"),
        method=(
            "The mean distance of the pixels of two images: of one class on the digits, of any two on the mixture. "
            "Recall is the share of the data that lies near drawn images, on at most 1,000 of each "
            "(arXiv 1904.06991)."
        ),
        rule=(
            f"The diversity of DDIM must be surely less than that of DDPM, in {FEW} steps each and in "
            f"{CONVERGED['ddim']} of DDIM against {CONVERGED['ddpm']} of DDPM."
        ),
        columns=("sampler", "steps", "mean distance of two images", "recall"),
        models=("digits", "mixture"),
        measure=diversity,
        checks=diversity_checks,
        here="diversity of DDIM over DDPM in 50 steps, in many",
        short=lambda figures: numbers(figures, ("few", "many")),
    ),
    Claim(
        key="churn",
        title="Churn helps from 30 to 50 evaluations on",
        says="Some noise before each step corrects errors once there are 30 to 50 evaluations; with fewer it hurts.",
        sources=("EDM, arXiv 2206.00364, section 4",),
        method=(
            "The Fréchet distance to the data on the pixels, of EDM's sampler on its grid: `s_churn` 0, and 0.1, 0.2 "
            "and 0.414 for each step, which is the most that EDM allows. The mixture has the exact score, so that "
            "churn can correct errors of the steps only; the digits have errors of the network too."
        ),
        rule=(
            "At 35 and at 49 evaluations the best amount must have a surely smaller distance than none, at 17 a surely "
            f"larger one. Its interval is of {SURE:.1%}, as three amounts are tried."
        ),
        columns=("evaluations", *AMOUNTS),
        models=("digits", "mixture"),
        measure=churn,
        checks=churn_checks,
        here="distance of the best churn over none at 17, 35, 49 evaluations",
        short=lambda figures: numbers(figures, [best_amount(figures, n) for n in EVALUATIONS]),
    ),
)
