"""Learning something new beside what a student of few steps draws already: its own answers, kept.

Beside the loss of the method that made it, on what it is to learn, the student D is to answer as it did, D_0, at the
states that D_0 itself meets at the rows i of its own plans, from fresh noise and for conditions c that are kept:

    loss = |D(x_i, t_i, c) - D_0(x_i, t_i, c)|^2

A student with the loss 0 draws what it drew, in as many rows. No picture of a teacher is needed, so there are as many
states as steps have samples. That is the idea of Li & Hoiem 2016 (arXiv 1606.09282), to keep a network's own answers,
at the only inputs that a student of few steps meets.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fewstep.core.plan import Plan
from fewstep.denoise.convert import Network
from fewstep.distillation.methods.regression import unrolled
from fewstep.distillation.pictures.pairs import Pairs
from fewstep.distillation.pictures.recording import Recorded
from fewstep.distillation.pictures.teacher import Conditions
from fewstep.training import (
    STUDENT,
    TEACHER,
    Batch,
    Draws,
    Loss,
    Memory,
    Method,
    Needs,
    Phase,
    Roles,
    memory_of,
    one_stage,
    schedule_of,
)
from fewstep.training.batch import chosen
from fewstep.training.levels import at_times


@dataclass(frozen=True, eq=False)
class Pair(Batch):
    """Samples of what is new, and beside each one condition that is kept.

    Attributes:
        kept: keyword arguments of the network, with the batch first.
    """

    kept: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Both:
    """What is new as pairs of a teacher, and what is kept as conditions alone; data for `fewstep.training`.

    Samples have as many numbers as it takes to meet all of both; one that is met again has other noise for what is
    kept, as the step is another.
    """

    new: Pairs
    kept: Conditions

    @property
    def count(self) -> int:
        """How many numbers there are."""
        return self.new.count * math.ceil(len(self.kept.each) / self.new.count)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What names them."""
        subjects = json.dumps(self.kept.subjects).encode()
        kept = f"{len(self.kept.each)}, {hashlib.sha256(subjects).hexdigest()[:16]}"
        return {"new": dict(self.new.identity), "kept": kept}

    def batch(self, numbers: Sequence[int]) -> Pair:
        """Some samples, where the network is. None of them guides, as only a teacher is guided."""
        new = self.new.batch([number % self.new.count for number in numbers])
        kept = self.kept.of(numbers).positive
        return Pair(new.data, new.noise, new.condition, along=new.along, kept=kept)


@dataclass(frozen=True)
class Steadfast:
    """Settings of learning something new beside what is kept. The teacher is the student as it was.

    Attributes:
        of: the method that teaches what is new, which made the student.
        plans: numbers of rows of the plans in which it is to draw as it did.
        weight: of what is kept, beside the method's own loss.
    """

    name: ClassVar[str] = "steadfast"
    needs: ClassVar[Needs] = Needs(teacher=True, pairs=True)

    of: Method
    plans: tuple[int, ...]
    weight: float = 1.0

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def memory(self) -> Memory:
        return memory_of(self.of)

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        assert isinstance(batch, Pair)
        yield from self.of.losses(roles, batch, phase, draws)
        network = roles[STUDENT].network
        noise = draws.normal("kept", batch.data.shape[1:]).to(batch.data.dtype)
        places, times, x, aim = self.answers(roles[TEACHER].network, batch.kept, noise, draws)
        condition = chosen(batch.kept, places)
        estimate = network.given(condition).estimate(x, at_times(schedule_of(network), times, x))[0]
        value = (estimate - aim).square().mean()
        yield Loss(STUDENT, self.weight * value, {"kept": float(value.detach())})

    @torch.no_grad()
    def answers(
        self, network: Network, kept: Mapping[str, Any], noise: Tensor, draws: Draws
    ) -> tuple[list[int], list[float], Tensor, Tensor]:
        """The place of each sample in the batch, and for it a time, a state and the answer there of the student as it
        was: plans in equal shares, and so their rows.
        """
        share = draws.spread("kept row") * len(self.plans)
        of_plan = np.minimum(share.astype(int), len(self.plans) - 1)
        places: list[int] = []
        times: list[float] = []
        states, answers = [], []
        for i, rows in enumerate(self.plans):
            own = np.flatnonzero(of_plan == i).tolist()
            if not own:
                continue
            plan, recorded = self.plan(network, rows), Recorded(network.given(chosen(kept, own)))
            unrolled(plan, recorded, noise[own] * plan.entry[1])
            at = [min(int((share[place] - i) * rows), rows - 1) for place in own]
            places += own
            times += [plan.rows[row].t for row in at]
            states += [recorded.states[row][j] for j, row in enumerate(at)]
            answers += [recorded.answers[row][j] for j, row in enumerate(at)]
        return places, times, torch.stack(states), torch.stack(answers)

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        return self.of.plan(network, rows)
