"""A method of a few weights for the tests of the loop: a student learns a line from noisy samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import schedules
from fewstep.training import (
    STUDENT,
    TEACHER,
    Batch,
    Draws,
    Loss,
    Needs,
    Phase,
    Roles,
    Run,
    Settings,
    one_stage,
    student_of,
)


class Line(nn.Module):
    """Linear, with dropout, so that the state of the global generator would matter."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 3)
        self.drop = nn.Dropout(0.2)
        with torch.no_grad():
            self.line.weight.copy_(torch.eye(3))
            self.line.bias.zero_()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.line(self.drop(x))


@dataclass(frozen=True)
class Fit:
    """The student is to answer -2 x, or twice the teacher's answer in later stages."""

    name: ClassVar[str] = "fit"
    needs: ClassVar[Needs] = Needs(images=True)

    stages: int = 1
    nan_at: int | None = None

    def phase(self, step: int, steps: int) -> Phase:
        if self.stages == 1:
            return one_stage(step, steps)
        each = steps // self.stages
        stage = min(step // each, self.stages - 1)
        return Phase(stage, self.stages, stage * each, each, step)

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        x = batch.data + 0.1 * draws.normal("noise", (3,))
        t = torch.zeros(len(x))
        with torch.no_grad():
            wanted = -2 * x if phase.stage == 0 else 2 * roles[TEACHER].module(x, t)
        value = (roles[STUDENT].module(x, t) - wanted).square().mean()
        yield Loss(STUDENT, value * (float("nan") if phase.step == self.nan_at else 1.0))

    def plan(self, network: fs.Network, rows: int | None = None) -> fs.Plan:
        raise AssertionError


class Samples:
    """Numbers from a generator, by their own number."""

    identity: ClassVar[dict[str, str]] = {"name": "samples"}

    def __init__(self, count: int | None = 50) -> None:
        self.count = count
        self.asked: list[list[int]] = []

    def batch(self, numbers: Sequence[int]) -> Batch:
        self.asked.append(list(numbers))
        return Batch(Draws(9, 0, numbers, range(len(numbers)), len(numbers)).normal("data", (3,)))


QUICK = Settings(steps=24, batch=8, rate=0.05, seed=4, state_every=4, log_every=6)


def run(folder: Path, method: Fit | None = None, settings: Settings = QUICK, data: Samples | None = None) -> Run:
    """A new run in a folder."""
    teacher = fs.Network(Line(), schedules.flow(), "sample")
    return Run(method or Fit(), student_of(teacher, succeeds=True), data or Samples(), settings, folder)
