"""A `PlanScheduler` made from a scheduler of diffusers draws what that draws, or says why not, with every setting."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from fewstep.adapters.diffusers import PlanScheduler

from .hosted_cases import SD, STEPS, UNREAD, VALUES, schedulers
from .hosted_departures import NAMED, named
from .hosted_report import found, section

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"


@pytest.mark.parametrize("name", schedulers())
def test_each_setting_at_each_number_of_steps_draws_the_same_or_is_a_named_departure(name: str) -> None:
    wrong = [
        (each.case.label, each.steps, each.kind, each.difference, each.words)
        for each in found(name)
        if each.kind in ("apart", "refused") and named(each) is None
    ]
    assert wrong == []
    compared = [each for each in found(name) if each.kind == "equal"]
    assert {each.steps for each in compared} >= set(STEPS) - ({14} if name == "PNDM" else set())


def test_every_setting_of_every_class_is_tried_and_every_departure_is_needed() -> None:
    tried, needed, kinds = set(), Counter[str](), Counter[str]()
    for name, known in schedulers().items():
        tried |= known.keys()
        for each in found(name):
            kinds[each.kind] += 1
            if (reason := named(each)) is not None:
                needed[reason.name] += 1
    assert tried == VALUES.keys() | UNREAD
    assert needed.keys() == {each.name for each in NAMED}
    assert kinds["equal"] > 2000
    assert kinds["apart"] + kinds["refused"] < 0.08 * kinds.total()


def test_the_page_says_what_was_found() -> None:
    assert section() in PAGE.read_text(encoding="utf-8"), "run `python docs/generate_conformance.py`"


# --- quirks of single classes that the page names ---------------------------------------------------------------


def run(scheduler: Any, start: int = 0, **more: Any) -> torch.Tensor:
    scheduler.set_timesteps(6)
    if start:
        scheduler.set_begin_index(start)
    x = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps[start:]:
        x = scheduler.step(torch.tanh(scheduler.scale_model_input(x, t)), t, x, **more).prev_sample
    return x


def test_lms_of_diffusers_begins_late_with_weights_for_a_history_that_it_does_not_have() -> None:
    theirs = diffusers.LMSDiscreteScheduler(**SD)
    ours = PlanScheduler.from_config(theirs)
    assert float((run(ours) - run(theirs)).abs().max()) < 1e-4
    late = float((run(ours, 3) - run(theirs, 3)).abs().max())
    assert late > 0.05


def test_sa_solver_of_diffusers_draws_noise_also_in_steps_that_use_none() -> None:
    theirs = diffusers.SASolverScheduler(**SD, tau_func=lambda t: float(t < 400))
    ours = PlanScheduler.from_config(theirs)
    left = []
    for scheduler in (theirs, ours):
        generator = torch.Generator().manual_seed(0)
        run(scheduler, generator=generator)
        left.append(torch.rand(1, generator=generator))
    assert not torch.equal(*left)
    assert len([row for row in ours.plan.rows if row.noise is not None]) < 6
