"""The verdict: the best plan, the default and the rivals on held-out noise, and what the certificate says of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from fewstep.core.plan import Plan
from fewstep.measure.distance import overall
from fewstep.tuning.certificate import Certificate, Compared, ConfidenceInterval, gain
from fewstep.tuning.problem import Problem, Solutions
from fewstep.tuning.settings import HELD_OUT
from fewstep.tuning.standings import Standing, Standings
from fewstep.tuning.table import LEARNED
from fewstep.tuning.task import Best, TuningTask
from fewstep.tuning.teacher import Lessons

SHOWN = 8
"""Images on the page."""


def certified(
    task: TuningTask,
    lessons: Lessons,
    best: Best,
    standings: Standings,
    searched: Mapping[str, Any],
    stopped: str,
) -> tuple[Plan, Certificate]:
    """The best plan, or the default where it does not beat that beyond noise, and its certificate."""
    problem, teacher, held_out = task.problem, lessons.teacher, lessons.held_out
    objective, default = problem.objective, standings.default
    task.watch("certificate", 0, 2, "")
    own = best.plan or task.default
    learned = standings.find(own) or Standing.of(problem, own, held_out)
    over = gain(default.errors, learned.errors, objective)
    told_apart = overall(default.errors, objective) > teacher.error
    chosen = learned if over.low > 1 and told_apart else default
    rival = standings.best(objective)
    task.watch("certificate", 1, 2, "")
    task.time.spent["twice"] = _twice(task, best, held_out, overall(rival.errors, objective))
    elsewhere = _elsewhere(task, teacher.plan, chosen.plan, rival.plan, len(held_out.numbers) // 4)
    pictures = _pictures(problem, held_out, chosen.plan, rival.plan)
    task.time.spent["total"] = task.time.elapsed
    untuned = [one.plan for one in standings.measured]
    compared = {one.plan.digest: one for one in (learned, *standings.measured)}
    rows = [Compared.of(_kind(one.plan, task.default, untuned), *one) for one in compared.values()]
    return chosen.plan, Certificate(
        plan=chosen.plan.digest,
        kind=_kind(chosen.plan, task.default, untuned),
        rows=task.rows,
        nfe=default.nfe,
        model={"name": problem.name, "digest": problem.digest},
        settings=dict(problem.settings),
        schedule=problem.schedule.fingerprint,
        seed=problem.seed,
        compared=sorted(rows, key=lambda one: one.error(objective).value),
        over_default=over if chosen is learned else ConfidenceInterval(1.0, 1.0, 1.0),
        over_untuned=gain(standings.errors, chosen.errors, objective),
        rival=named(rival.plan),
        rivals={
            "measured": len(standings.measured),
            "ranked": searched.get("untuned", 0),
            "missing": [named(plan) for plan in standings.missing],
        },
        elsewhere=elsewhere,
        teacher={
            "sampler": teacher.plan.recipe.sampler,
            "grid": teacher.plan.recipe.grid,
            "rows": len(teacher.plan.rows),
            "error": teacher.error,
        },
        images=asdict(lessons.sizes),
        search=searched,
        learning=best.learning,
        seconds=task.time.spent,
        stopped=stopped,
        factors=chosen.plan.guidance_factors,
        objective=objective,
        pictures=pictures,
    )


def named(plan: Plan) -> str:
    """A plan as people call it."""
    return f"{plan.recipe.sampler} on {plan.recipe.grid}"


def _pictures(problem: Problem, images: Solutions, plan: Plan, rival: Plan) -> dict[str, bytes]:
    """The first held-out images: converged, by the plan, and by the best rival; none where there are no pixels."""
    if problem.picture is None:
        return {}
    first = images.first(SHOWN)
    states = {"converged": first.targets, "this plan": problem.solve(plan, first.numbers)}
    if rival.digest != plan.digest:
        states[f"best untuned, {named(rival)}"] = problem.solve(rival, first.numbers)
    return {name: problem.picture(one) for name, one in states.items()}


def _kind(plan: Plan, default: Plan, rivals: Sequence[Plan]) -> str:
    """Where a plan comes from, as `Compared` says it."""
    if plan == default:
        return "default"
    if plan in rivals:
        return "untuned"
    return LEARNED if plan.recipe.sampler == LEARNED else "searched"


def _twice(task: TuningTask, best: Best, held_out: Solutions, untuned: float) -> float | None:
    """When a plan came with half the error of the best untuned one, on the held-out images; None for never.

    The plans came in the order of their errors on the validation images, so the first is found by bisection.
    """
    reached = bisect_left(best.came, True, key=lambda one: task.problem.error(one[1], held_out) <= 0.5 * untuned)
    return best.came[reached][0] if reached < len(best.came) else None


def _elsewhere(task: TuningTask, teacher: Plan, plan: Plan, rival: Plan, count: int) -> dict[str, ConfidenceInterval]:
    """The gain of `plan` over `rival` under the other settings of the problem."""
    found = {}
    for name, denoiser in task.problem.elsewhere.items():
        other = replace(task.problem, denoiser=denoiser, elsewhere={})
        if len(plan.rows) > len(rival.rows) and not other.guided:
            continue  # without guidance more rows cost more
        numbers = range(HELD_OUT, HELD_OUT + count)
        images = Solutions(numbers, other.solve(teacher, numbers))
        found[name] = gain(other.errors(rival, images), other.errors(plan, images), other.objective)
    return found
