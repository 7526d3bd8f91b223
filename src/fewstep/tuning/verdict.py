"""The verdict: the best plan, the default and the rivals on held-out noise, and what the certificate says of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from fewstep.core.plan import Plan
from fewstep.measure.distance import overall, squares
from fewstep.tuning.certificate import Certificate, Compared, ConfidenceInterval, gain
from fewstep.tuning.problem import Solutions
from fewstep.tuning.settings import HELD_OUT
from fewstep.tuning.table import LEARNED
from fewstep.tuning.task import Best, TuningTask
from fewstep.tuning.teacher import Lessons


def certified(
    task: TuningTask, lessons: Lessons, best: Best, rivals: Sequence[Plan], searched: Mapping[str, Any], stopped: str
) -> tuple[Plan, Certificate]:
    """The best plan, or the default where it does not beat that beyond noise, and its certificate."""
    problem, teacher, held_out = task.problem, lessons.teacher, lessons.held_out
    own, objective = best.plan or task.default, task.problem.objective
    plans = {plan.digest: plan for plan in (own, task.default, *rivals)}
    errors: dict[str, Tensor] = {}
    compared: list[Compared] = []
    for i, (digest, plan) in enumerate(plans.items()):
        task.watch("certificate", i, len(plans), "")
        states, evaluations = problem.solve_counted(plan, held_out.numbers)
        errors[digest] = squares(states, held_out.targets)
        compared.append(Compared.of(_kind(plan, task.default, rivals), plan, errors[digest], evaluations))

    def error(plan: Plan) -> float:
        return overall(errors[plan.digest], objective)

    over = gain(errors[task.default.digest], errors[own.digest], objective)
    told_apart = error(task.default) > teacher.error
    chosen = own if over.low > 1 and told_apart else task.default
    rival = min([task.default, *rivals], key=error)
    task.time.spent["twice"] = _twice(task, best, held_out, error(rival))
    elsewhere = _elsewhere(task, teacher.plan, chosen, rival, len(held_out.numbers) // 4)
    task.time.spent["total"] = task.time.elapsed
    return chosen, Certificate(
        plan=chosen.digest,
        kind=_kind(chosen, task.default, rivals),
        rows=task.rows,
        nfe=next(one.nfe for one in compared if one.digest == task.default.digest),
        model={"name": problem.name, "digest": problem.digest},
        settings=dict(problem.settings),
        schedule=problem.schedule.fingerprint,
        seed=problem.seed,
        compared=sorted(compared, key=lambda one: one.error(objective).value),
        over_default=over if chosen is own else ConfidenceInterval(1.0, 1.0, 1.0),
        over_untuned=gain(errors[rival.digest], errors[chosen.digest], objective),
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
        factors=chosen.guidance_factors,
        objective=objective,
    )


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
