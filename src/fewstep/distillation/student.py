"""A student as an ordinary model: the teacher's files with the trained network, its plan and no guidance.

The plan lies in what the model recommends, so nobody draws with other times by mistake.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from fewstep import zoo
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.convert import Network
from fewstep.distillation.pictures.teacher import Teacher
from fewstep.distillation.terms.plan import Plans
from fewstep.models import copies

LADDER = (1, 2, 4, 8)
"""Numbers of rows."""


def recommendation(plan: Plan, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The overlay that a student recommends: its plan, and guidance 1 unless it is told the scale."""
    told = facts.get("student", {})
    scale = told["guidance"] if told.get("scales") else 1.0
    return {"sampling": {"plan": json.loads(plan.to_json())}, "guidance": {"scale": scale}}


def taught_by(teacher: Teacher, name: str, step: int) -> dict[str, Any]:
    """What the files of a student say of its teacher: its `name`, the guidance that the student has inside, and the
    plan by which it drew; and of which `step` of the training the student is.
    """
    return {
        "teacher": name,
        "guidance": teacher.guidance,
        "step": step,
        "plan": json.loads(teacher.order.plan.to_json()),
    }


def source_of(model: str | os.PathLike[str]) -> Path:
    """The files of a teacher. Raises `InvalidInput` for those beside which no student could be written."""
    return copies.source_of(model, "a student")


def target_of(folder: Path, source: Path) -> Path:
    """Where the student of a source lies in the folder of its training."""
    return copies.target_of(folder, source, "student")


def write(target: Path, source: Path, network: nn.Module, plans: Sequence[Plan], facts: Mapping[str, Any]) -> None:
    """Write a student: whole or not at all. It recommends the first of its plans; `facts` say how it was trained."""
    plan, *others = plans
    copies.write(target, source, network, kept(source) | recommendation(plan, facts), facts, plans=others)


def facts_of(model: str | os.PathLike[str]) -> dict[str, Any]:
    """What the files of a student say of how it was trained; empty where they say nothing."""
    path = zoo.shipped_path(str(model)) if model in zoo.SHIPPED else Path(model)
    if path.is_file():
        return dict(zoo.load(path).spec.training)
    return copies.facts_of(path)


def plans_of(method: Plans, network: Network) -> list[Plan]:
    """The plans that a student knows, its own first, and those of `LADDER` in which its method says how it draws."""
    own = method.plan(network)
    found = [own]
    for rows in LADDER:
        with suppress(InvalidInput):
            found += [method.plan(network, rows)] if rows != len(own.rows) else []
    return found


def kept(source: Path) -> dict[str, Any]:
    """What a teacher recommends of other things than sampling and guidance, which its student then does too."""
    found = {} if source.is_file() else copies.recommended_by(source)
    return {name: value for name, value in found.items() if name in ("clip_skip", "decode")}
