"""Tuned plans that lie with a model: `sampler="tuned"` takes the one that costs as much as the steps asked for. That is
its number of rows, unless it guides some rows alone.

They are the files that `fewstep tune` writes, in the folder `plans` of a model's folder, or in NAME.plans beside a
NAME.safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.factors import guided_cost

if TYPE_CHECKING:
    from fewstep.pipeline.pipeline import Pipeline
    from fewstep.pipeline.text import TextPipeline

TUNED = "tuned"
MOST_FILES = 64


def plans_of(path: Path) -> Path:
    """Where the tuned plans of a model in `path`, a folder or a file, lie."""
    return path.with_suffix(".plans") if path.suffix == ".safetensors" else path / "plans"


def resolved(pipe: Pipeline | TextPipeline, sampler: Any, given: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """(sampler, given) with a plan of the model in the place of "tuned"; everything else as it was.

    Args:
        given: steps, grid, grid_options, times, sigmas and options, None where the caller chose nothing.

    Raises:
        InvalidInput: the model has no tuned plan for so many steps, or it was tuned for other weights or another
            noise schedule, and where something that the plan decides is given too.
    """
    if sampler != TUNED:
        return sampler, dict(given)
    twice = [name for name, value in given.items() if value is not None and name != "steps"]
    if twice:
        raise InvalidInput(f"a tuned plan decides {', '.join(twice)}: leave them out, or name another sampler")
    plan = _chosen(pipe.name, tuned_plans(pipe.plans), given.get("steps"))
    if plan.recipe.schedule_fingerprint != pipe.schedule.fingerprint:
        raise InvalidInput(f"the tuned plan {plan.digest} of {pipe.name} is for another noise schedule: tune it again")
    from fewstep.tuning.table import check_model  # until the check has a place below this room

    check_model(plan, pipe.name, pipe.weights, "tune one for it with `fewstep tune`")
    return plan, {**given, "steps": None}


def tuned_plans(folder: Path | None) -> dict[int, Plan]:
    """The plans in a folder by the steps that they cost, the fewest first; none where there is no folder.

    Raises `InvalidInput` for a file that is no plan, for two of the same cost, and for too many files.
    """
    files = [] if folder is None or not folder.is_dir() else sorted(folder.glob("*.json"))
    files = [file for file in files if not file.name.endswith(".certificate.json")]
    if len(files) > MOST_FILES:
        raise InvalidInput(f"{folder} holds {len(files)} plans, at most {MOST_FILES} are read: remove some")
    found: dict[int, tuple[Path, Plan]] = {}
    for file in files:
        plan = Plan.load(file)
        steps = guided_cost(plan)
        if steps in found:
            raise InvalidInput(f"{file} and {found[steps][0]} both cost {steps} steps: remove one")
        found[steps] = file, plan
    return {steps: found[steps][1] for steps in sorted(found)}


def _chosen(name: str, plans: Mapping[int, Plan], steps: Any) -> Plan:
    known = " and ".join([", ".join(map(str, [*plans][:-1])), str([*plans][-1])] if len(plans) > 1 else map(str, plans))
    if not plans:
        raise InvalidInput(f"{name} has no tuned plans: make one with `fewstep tune`, and put it into its folder plans")
    if steps is None and len(plans) == 1:
        return next(iter(plans.values()))
    if type(steps) is not int or steps not in plans:
        raise InvalidInput(
            f"{name} has tuned plans for {known} steps, got {'none' if steps is None else repr(steps)}: ask for such a "
            f"number, or make one with `fewstep tune --rows {steps if type(steps) is int else 'N'}`"
        )
    return plans[steps]
