"""A student whose training changed its teacher by low ranks, as files.

    lora/pytorch_lora_weights.safetensors     beside the student; see `fewstep.models.copies`
    lora/plan.json                            the plan to draw with, at guidance 1

or in place of a student a folder of its own with what differs from a shipped model alone; see `fewstep.models.adapted`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewstep import zoo
from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.plan import Plan
from fewstep.distillation.student import kept, recommendation
from fewstep.files import write_whole
from fewstep.models import bases, copies, lowrank
from fewstep.models.lowrank import Changes


def write_lora(folder: Path, source: Path, changes: Changes, plan: Plan) -> Path | None:
    """Write changes and plan beside a student; None where the source is a file, unknown to diffusers."""
    path = copies.write_lora(folder, source, changes)
    if path is not None:
        write_whole(path.parent / "plan.json", plan.to_json().encode())
    return path


def write_adapted(target: Path, base: str, changes: Changes, plans: Sequence[Plan], facts: Mapping[str, Any]) -> None:
    """Write a student as what differs from a shipped model, whole or not at all.

    Args:
        target: a folder that may be there; its name is that of the model.
        base: the name of the shipped model, in the format of diffusers.
        plans: that the student is drawn with, the one that it recommends first.
        facts: how it was trained; `{"student": {"teacher": .., "guidance": ..}}` names the model that takes other
            guidance, and the scale that the student has inside.

    Raises `InvalidInput` for another base, and where nothing differs.
    """
    if base not in bases():
        raise unknown_name("shipped model in the format of diffusers", base, bases())
    if not changes:
        raise InvalidInput(f"nothing differs from {base}: draw with that")
    source = zoo.shipped_path(base)
    for left in target.parent.glob(f".{target.name}.*"):  # by a kill
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as around:
        made = Path(around) / target.name
        made.mkdir()
        lowrank.write(made, copies.part_of(source), changes)
        stated = {"base": base, **kept(source), **recommendation(plans[0], facts)}
        write_whole(made / "fewstep.json", (json.dumps(stated) + "\n").encode())
        write_whole(made / "distillation.json", (json.dumps(dict(facts), indent=1) + "\n").encode())
        copies.write_plans(made / "plans", plans[1:])
        if target.exists():
            shutil.rmtree(target)
        os.replace(made, target)
