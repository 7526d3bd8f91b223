"""The command that tunes a student's plan, as its report offers it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from fewstep import zoo
from fewstep.core.plan import Plan
from fewstep.denoise.convert import Network
from fewstep.distillation.plan_search.tunable import LEAST, MOST
from fewstep.distillation.suitability import original_of
from fewstep.pipeline import Pipeline


def offer_of(student: Path, network: Network, plans: Sequence[Plan], teacher: Pipeline, origin: Path) -> str:
    """A sentence with the command; "" where a student has no plan that can be tuned.

    Args:
        plans: that it knows, its own first; `origin`: where its teacher lies.
    """
    rows = [len(plan.rows) for plan in plans if LEAST <= len(plan.rows) <= MOST]
    if not rows or network.rows.guesses > 1:
        return ""
    words = ["fewstep", "tune", str(student), "--rows", str(rows[0])]
    name = original_of(teacher)
    if name != teacher.model.name or not (name in zoo.SHIPPED or Path(name).exists()):
        words += ["--teacher", str(origin)]
    if teacher.model.conditioner.field == "prompts" and name not in zoo.SHIPPED:
        words += ["--prompts", "FILE"]
    return f"Its plan can be tuned, without training it again: {shlex.join(words)}"
