"""Where the teacher is guided, and where not: a student has its teacher's guidance inside, once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import schedules
from fewstep.distillation import Consistency, Progressive
from fewstep.training import STUDENT, Batch, Draws, Phase, student_of

SCHEDULE = schedules.flow()
LABEL, NEGATIVE, SCALE = 0.7, 0.1, 3.0
GUIDED = NEGATIVE + SCALE * (LABEL - NEGATIVE)


class Told(nn.Module):
    """The data are what the label says, whatever the state."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return self.factor * label[:, None].expand_as(x)


def loss_of(method: Any, phase: Phase, guidance: float = SCALE) -> float:
    roles = student_of(fs.Network(Told(), SCHEDULE, "sample"), guidance)
    count = 32
    conditions = [{"label": torch.full((count,), value)} for value in (LABEL, NEGATIVE)]
    batch = Batch(torch.zeros(count, 3), condition=conditions[0], negative=conditions[1])
    (loss,) = method.losses(roles, batch, phase, Draws(0, phase.step, range(count), range(count), count))
    assert loss.role == STUDENT
    return float(loss.value.detach())


def test_progressive_rounds_after_the_first_have_an_unguided_teacher() -> None:
    """Two steps to one point are one step to it, so the error is that of the guided label, by weight."""
    method = Progressive(begin=4, end=1)
    first, second = Phase(0, 2, 0, 10, 0), Phase(1, 2, 10, 10, 10)
    noisy = torch.tensor([1.0, 0.5])
    weights = ((1 - noisy) / noisy).square().clamp(min=1)
    assert loss_of(method, first) == pytest.approx(float(weights.mean()) * (GUIDED - LABEL) ** 2, rel=1e-4)
    assert loss_of(method, second) == pytest.approx(0, abs=1e-10)
    assert loss_of(method, first, guidance=1.0) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("step", ["ddim", "heun"])
def test_the_end_of_a_consistency_step_is_where_guidance_leads(step: str) -> None:
    """The target at the end of the grid is the state there, and elsewhere the student's own, which is the label."""
    method = Consistency(step=step, first=2, stages=1, deviation=0.0, huber=0.0, least=1e-3)
    assert loss_of(method, Phase(0, 1, 0, 10, 0)) > 0.1
    assert loss_of(method, Phase(0, 1, 0, 10, 0), guidance=1.0) < 1e-5
