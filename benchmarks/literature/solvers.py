"""Orders at work: Heun against Euler, Runge-Kutta of order 4, and what half the step width is worth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import fewstep as fs
from fewstep import InvalidInput
from fewstep.measure.distance import overall
from literature import intervals
from literature.claim import Check, Claim, Figures, Found, Interval, number, numbers
from literature.subject import FEWEST, converged, errors, judged, plan, problem

GRIDS = ("trailing", "quadratic", "karras", "exponential")
RUNGE_KUTTA = ("heun", "rk4")
ERROR = (
    "The distance to the converged solution from the same noise, of the typical image (the geometric mean of the root "
    "mean square distances of images)."
)


def within(model: str, sampler: str, evaluations: int, grid: str, **options: str) -> fs.Plan | None:
    """The plan with the most steps that takes at most so many evaluations; None where a sampler refuses the grid."""
    a_step = fs.SAMPLERS[sampler].evaluations
    steps = max(1, evaluations // a_step)
    try:
        own = plan(model, sampler, steps, grid, **options)
        more = plan(model, sampler, steps + 1, grid, **options)
    except InvalidInput:
        return None
    best = more if len(more.rows) <= evaluations else own
    return best if len(best.rows) <= evaluations else None


def candidates(model: str, sampler: str, evaluations: int, grids: Iterable[str] = GRIDS) -> list[tuple[str, fs.Plan]]:
    """A sampler on each grid, Runge-Kutta methods in both coordinates, with the words for it."""
    paths = ({"path": "sigma"}, {"path": "flow"}) if sampler in RUNGE_KUTTA else ({},)
    found = []
    for grid in grids:
        for path in paths:
            own = within(model, sampler, evaluations, grid, **path)
            if own is not None:
                found.append((", ".join([grid, *(f"path {p}" for p in path.values())]), own))
    return found


def best(model: str, sampler: str, evaluations: int, images: int) -> tuple[str, fs.Plan]:
    """The candidate with the least typical error on the first quarter of the images."""
    known = converged(model, images).images.first(max(FEWEST, images // 4))
    return min(
        candidates(model, sampler, evaluations),
        key=lambda one: overall(problem(model).errors(one[1], known), "psnr"),
    )


def heun(model: str, images: int) -> Found:
    """Euler and Heun on one grid, and each where it is best, at 20 and 40 evaluations."""
    count = judged(model, images)
    rows, figures = [], {}
    for evaluations in (20,) if model == "scenes" else (20, 40):
        places = {
            "on karras": [("karras", within(model, sampler, evaluations, "karras")) for sampler in ("euler", "heun")],
            "each at its best": [best(model, sampler, evaluations, count) for sampler in ("euler", "heun")],
        }
        for place, ((first, euler), (second, own)) in places.items():
            assert euler is not None
            assert own is not None
            both = [errors(one, model, count) for one in (euler, own)]
            gain = intervals.ratio(both[0], both[1], converged(model, count).error)
            rows.append([
                f"{len(euler.rows)} of Euler, {len(own.rows)} of Heun", place if place == "on karras" else
                f"{first}; {second}", intervals.typical(both[0]), intervals.typical(both[1]), gain,
            ])  # fmt: skip
            figures[f"{evaluations} {place}"] = gain
    return Found(rows, figures)


def heun_checks(figures: Figures) -> list[Check]:
    """Nearer at 20 evaluations."""
    return [
        Check(f"{place}, Euler has {figures[f'20 {place}']} times the error of Heun", figures[f"20 {place}"].above(1.0))
        for place in ("on karras", "each at its best")
    ]


RK4_AT = (20, 40, 160)
RIVALS = ("euler", "heun", "rk4", "dpmpp-2m")


def rk4(model: str, images: int) -> Found:
    """Four samplers at equal evaluations, each where it is best."""
    count = judged(model, images)
    known = converged(model, count).error
    rows, figures = [], {}
    for evaluations in RK4_AT:
        found = {sampler: best(model, sampler, evaluations, count) for sampler in RIVALS}
        wrong = {sampler: errors(own, model, count) for sampler, (_, own) in found.items()}
        rows.append([evaluations, *(intervals.typical(wrong[sampler]) for sampler in RIVALS), found["rk4"][0]])
        for other in ("heun", "dpmpp-2m"):
            figures[f"rk4 over {other} {evaluations}"] = intervals.ratio(wrong["rk4"], wrong[other], known)
    rows.append(["converged solution", *[known] * len(RIVALS), ""])
    return Found(rows, figures)


def rk4_checks(figures: Figures) -> list[Check]:
    """Behind at 20, ahead at 160."""
    few, many = figures["rk4 over dpmpp-2m 20"], figures["rk4 over heun 160"]
    return [
        Check(f"at 20 evaluations RK4 has {few} times the error of `dpmpp-2m`", few.above(1.0)),
        Check(f"at 160 it has {many} times that of Heun", many.below(1.0)),
    ]


EVEN = {"trailing": "even in time", "quadratic": "even in its root"}
"""Grids whose steps all become half as wide when there are twice as many."""
HALVINGS, SCENES_HALVINGS = (10, 20, 40, 80, 160), (10, 20, 40, 80)
ABOUT_TWO = (1.8, 2.2)


def halving(model: str, images: int) -> Found:
    """Euler, which is DDIM, and on exact models Heun, with more and more steps."""
    count = judged(model, images)
    counts, known = SCENES_HALVINGS if model == "scenes" else HALVINGS, converged(model, count).error
    rows, figures = [], {}
    for grid, words in EVEN.items():
        for sampler in ("euler", "heun") if model in ("mixture", "flow") else ("euler",):
            wrong = [errors(even(model, sampler, n, grid), model, count) for n in counts]
            for i, n in enumerate(counts):
                times = intervals.ratio(wrong[i - 1], wrong[i], known) if i else None
                rows.append([words, f"`{sampler}`", n, intervals.typical(wrong[i]), times])
                if sampler == "euler" and times is not None:
                    figures[f"{words}, {counts[i - 1]} to {n}"] = times
    rows.append(["", "converged solution", "", known, None])
    return Found(rows, figures)


def even(model: str, sampler: str, steps: int, grid: str) -> fs.Plan:
    """A plan on real times, Runge-Kutta methods in the coordinate that bears wide steps."""
    options: dict[str, Any] = {"grid_integer": False} if grid == "trailing" else {}
    if sampler in RUNGE_KUTTA:
        options["path"] = "flow"
    return plan(model, sampler, steps, grid, **options)


def halving_checks(figures: Figures) -> list[Check]:
    """A factor of about two at each doubling of the steps, on each grid."""
    checks = []
    for words, factors in by_grid(figures).items():
        met = [times.within(*ABOUT_TWO) for times in factors]
        all_of_them = False if False in met else None if None in met else True
        checks.append(Check(f"steps {words}: {', '.join(map(str, factors))} times smaller", all_of_them))
    return checks


def halving_short(figures: Figures) -> str:
    """The least and the greatest factor of each grid."""
    values = [[times.value for times in factors] for factors in by_grid(figures).values()]
    return ", ".join(f"{number(min(one))} to {number(max(one))}" for one in values)


def by_grid(figures: Figures) -> dict[str, list[Interval]]:
    """The factors of each grid, in the order of its steps."""
    return {
        words: [times for name, times in figures.items() if name.startswith(words)]
        for words in EVEN.values()
        if any(name.startswith(words) for name in figures)
    }


CLAIMS = (
    Claim(
        key="heun",
        title="10 steps of Heun beat 20 of Euler",
        says="At equal evaluations Heun's method, two of them a step, ends nearer to the exact solution than Euler's.",
        sources=("EDM, arXiv 2206.00364",),
        method=(
            f"{ERROR} Once both on the grid of the paper, once each on the best of {', '.join(GRIDS)}; Heun there in "
            "the better of its two coordinates. The best are chosen on a quarter of the images. The last step of Heun "
            "is one evaluation, so 10 steps are 19."
        ),
        rule="At 20 evaluations Euler must have surely more error, on the paper's grid and with each at its best.",
        columns=("evaluations", "grid", "error of Euler", "error of Heun", "times less with Heun"),
        models=("digits", "scenes", "mixture", "flow"),
        measure=heun,
        checks=heun_checks,
        here="error of Euler over Heun on `karras`, each at its best",
        short=lambda figures: numbers(figures, ("20 on karras", "20 each at its best")),
    ),
    Claim(
        key="rk4",
        title="RK4 does not pay, except for a reference",
        says=(
            "The classical method of order 4 takes four evaluations a step. It is behind where images are drawn in 20 "
            "evaluations, and ahead where a precise solution is wanted."
        ),
        sources=("EDM, arXiv 2206.00364", "PNDM, arXiv 2202.09778"),
        method=f"{ERROR} Each on the best of {', '.join(GRIDS)}, Runge-Kutta methods in the better coordinate.",
        rule="At 20 evaluations RK4 must have surely more error than `dpmpp-2m`; at 160 surely less than Heun.",
        columns=("evaluations", "Euler", "Heun", "RK4", "`dpmpp-2m`", "RK4 on"),
        models=("digits", "mixture", "flow"),
        measure=rk4,
        checks=rk4_checks,
        here="error over `dpmpp-2m` at 20 evaluations, over Heun at 160",
        short=lambda figures: numbers(figures, ("rk4 over dpmpp-2m 20", "rk4 over heun 160")),
        missing="The scenes are left out: 160 guided evaluations of several plans take too long on a CPU.",
    ),
    Claim(
        key="halving",
        title="Half the steps, twice the error, at first order",
        says="The error of a method of first order is proportional to the step: twice the steps, half of it.",
        sources=("DPM-Solver, arXiv 2206.00927, section 3", "EDM, arXiv 2206.00364, section 3"),
        method=(
            f"{ERROR} DDIM is Euler's method. Steps are even in time (`trailing`) or in its root (`quadratic`). On "
            "schedules of betas the noise near the data grows as that root, so with twice the steps the last one of "
            "`trailing` becomes only 1.4 times narrower in noise."
        ),
        rule=(
            f"Each doubling of the steps must make the error of Euler {ABOUT_TWO[0]:g} to {ABOUT_TWO[1]:g} times "
            "smaller, the whole interval, on both grids. Heun is in the table only: 4 is its limit."
        ),
        columns=("steps", "sampler", "count", "error", "times less than with half of them"),
        models=("digits", "scenes", "mixture", "flow"),
        measure=halving,
        checks=halving_checks,
        here="error over that in twice the steps, even in time, in its root",
        short=halving_short,
    ),
)
