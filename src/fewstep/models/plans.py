"""Tuned plans that lie with a model: the sampler "tuned" takes the one that costs as much as the steps asked for. That
is its number of rows, unless it guides some rows alone.

They are the files that `fewstep tune` writes, in the folder `plans` of a model's folder, or in NAME.plans beside a
NAME.safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.drawing.overlay import STUDENT_ROWS, Overlay, preset
from fewstep.models.defaults import on_schedule
from fewstep.models.identity import Identity
from fewstep.models.model import Model

TUNED = "tuned"
MOST_FILES = 64


def plans_of(path: Path) -> Path:
    """Where the tuned plans of a model in `path`, a folder or a file, lie."""
    return path.with_suffix(".plans") if path.suffix == ".safetensors" else path / "plans"


def check_tuned_for(plan: Plan, identity: Identity, remedy: str) -> None:
    """Raise `InvalidInput` where a plan was tuned for another model than that of an identity; `remedy`: what to do."""
    tuned = plan.tuned_for
    if tuned is not None and tuned.model and tuned.model not in (identity.weights, identity.merged):
        raise InvalidInput(
            f"the plan {plan.digest} was tuned for a model with digest {tuned.model}, this is {identity.name!r} with "
            f"digest {identity.merged}: {remedy}"
        )


def with_tuned_plan(model: Model, asked: Overlay) -> Overlay:
    """What is asked for with a plan of the model in the place of the sampler "tuned"; everything else as it was.

    Raises:
        InvalidInput: the model has no tuned plan for so many steps, or it was tuned for other weights or another
            noise schedule, and where something that the plan decides is given too.
    """
    sampling: Mapping[str, Any] = asked.get("sampling", {})
    if sampling.get("sampler") != TUNED:
        return asked
    twice = [name for name, value in sampling.items() if value is not None and name not in ("sampler", "steps")]
    if twice:
        raise InvalidInput(f"a tuned plan decides {', '.join(twice)}: leave them out, or name another sampler")
    plan = _chosen(model.name, tuned_plans(model.plans), sampling.get("steps"))
    if plan.recipe.schedule_fingerprint != model.schedule.fingerprint:
        raise InvalidInput(f"the tuned plan {plan.digest} of {model.name} is for another noise schedule: tune it again")
    check_tuned_for(plan, model.identity, "tune one for it with `fewstep tune`")
    return {**asked, "sampling": {"plan": plan}}


def tuned_plans(folder: Path | None) -> dict[int, Plan]:
    """The plans in a folder by the steps that they cost, the fewest first; none where there is no folder.

    Raises `InvalidInput` for a file that is not a plan, for two of the same cost, and for too many files.
    """
    files = [] if folder is None or not folder.is_dir() else sorted(folder.glob("*.json"))
    files = [file for file in files if not file.name.endswith(".certificate.json")]
    if len(files) > MOST_FILES:
        raise InvalidInput(f"{folder} holds {len(files)} plans, at most {MOST_FILES} are read: remove some")
    found: dict[int, tuple[Path, Plan]] = {}
    for file in files:
        plan = Plan.load(file)
        steps = plan.nfe(guided=True) // 2
        if steps in found:
            raise InvalidInput(f"{file} and {found[steps][0]} both cost {steps} steps: remove one")
        found[steps] = file, plan
    return {steps: found[steps][1] for steps in sorted(found)}


def learned_plans(model: Model) -> dict[int, Plan]:
    """The plans that a student learned, by their rows, the fewest first: the one that it recommends, and others that
    lie with it. None of a model that recommends no plan.
    """
    own = model.recommended.get("sampling", {}).get("plan")
    if own is None:
        return {}
    plan = own if isinstance(own, Plan) else Plan.from_json(json.dumps(own))
    found = {len(one.rows): one for one in tuned_plans(model.plans).values()} | {len(plan.rows): plan}
    return {rows: found[rows] for rows in sorted(found)}


def preset_for(model: Model, name: str) -> Overlay:
    """The overlay of a preset for a model: a student takes, of the plans that it learned, the one with the most rows up
    to those that the preset means for students. Raises `InvalidInput` for an unknown name.
    """
    overlay = on_schedule(preset(name), model.schedule.kind)
    plans = learned_plans(model)
    if not plans:
        return overlay
    steps = max([rows for rows in plans if rows <= STUDENT_ROWS[name]], default=min(plans))
    return {**overlay, "sampling": {"steps": steps}}


def _chosen(name: str, plans: Mapping[int, Plan], steps: Any) -> Plan:
    if not plans:
        raise InvalidInput(f"{name} has no tuned plans: make one with `fewstep tune`, and put it into its folder plans")
    if steps is None and len(plans) == 1:
        return next(iter(plans.values()))
    if type(steps) is not int or steps not in plans:
        *most, last = map(str, plans)
        known = f"{', '.join(most)} and {last}" if most else last
        raise InvalidInput(
            f"{name} has tuned plans for {known} steps, got {'none' if steps is None else repr(steps)}: ask for such a "
            f"number, or make one with `fewstep tune --rows {steps if type(steps) is int else 'N'}`"
        )
    return plans[steps]
