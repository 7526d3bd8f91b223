"""Progressive distillation: two steps of the teacher become one of the student, which then is the teacher.

Salimans & Ho 2022, arXiv 2202.00512, section 4 and algorithm 2. On a grid t_0 > .. > t_2N = clean, the student's step
from t = t_2i to t'' = t_2i+2 is to go where two DDIM steps of the teacher go, x''. So its estimate is to be

    x~ = (x'' - (sigma'' / sigma) x) / (alpha'' - (sigma'' / sigma) alpha)

with the weight max(alpha^2 / sigma^2, 1) or alpha^2 / sigma^2 + 1 of its mean square. Each round halves the steps,
begins from the averaged student of the round before, and has an optimiser, a rate and an average of its own. A network
that is told the guidance scale learns at scales of its interval, the same on both sides (Meng et al. 2023, arXiv
2210.03142, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.grid import grid_times
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser, Level
from fewstep.denoise.convert import Network
from fewstep.distillation.terms import checks
from fewstep.solvers.compiler import compile
from fewstep.training import STUDENT, TEACHER, Batch, Draws, Loss, Needs, Phase, Roles, check_rows, schedule_of
from fewstep.training.levels import at_times, euler, noised, target_of

WEIGHTS = ("snr+1", "truncated-snr")
MOST_STEPS = 1024


@dataclass(frozen=True)
class Progressive:
    """Settings of progressive distillation.

    Attributes:
        begin: steps of the first teacher, a power of two times `end`, up to 1,024.
        end: steps of the last student.
        grid: of the first teacher's times; later students take every second one.
        weight: of the error, "snr+1" or "truncated-snr".
        longer: how many times as long as the others the two last rounds are.
    """

    name: ClassVar[str] = "progressive"
    needs: ClassVar[Needs] = Needs(
        teacher=True, images=True, predictions=("v_prediction", "sample", "flow", "edm"), told=True
    )

    begin: int = 16
    end: int = 1
    grid: str = "trailing"
    weight: str = "truncated-snr"
    longer: int = 2

    def __post_init__(self) -> None:
        rounds = self.begin // self.end if type(self.begin) is int and type(self.end) is int and self.end > 0 else 0
        if rounds < 2 or rounds & (rounds - 1) or rounds * self.end != self.begin or self.begin > MOST_STEPS:
            raise InvalidInput(
                f"begin must be end times 2, 4, 8 .. and at most {MOST_STEPS}, got {self.begin!r} and {self.end!r}"
            )
        checks.check_known(self, weight=WEIGHTS)
        checks.check_counts(self, longer=None)

    @property
    def rounds(self) -> int:
        """How often the steps are halved."""
        return (self.begin // self.end).bit_length() - 1

    def phase(self, step: int, steps: int) -> Phase:
        shares = [1.0] * max(0, self.rounds - 2) + [float(self.longer)] * min(2, self.rounds)
        edges = np.rint(np.cumsum([0.0, *shares]) / sum(shares) * steps).astype(int).tolist()
        if min(np.diff(edges)) < 1:
            raise InvalidInput(f"{steps} training steps are too few for {self.rounds} rounds")
        stage = next(i for i in range(self.rounds) if step < edges[i + 1])
        return Phase(stage, self.rounds, edges[stage], edges[stage + 1] - edges[stage], step)

    def times(self, schedule: Schedule, steps: int) -> np.ndarray:
        """The times (steps + 1,) of a student of so many steps."""
        return grid_times(self.grid, schedule, self.begin)[:: self.begin // steps]

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        student, schedule = roles[STUDENT], schedule_of(roles[STUDENT].network)
        fine = self.times(schedule, self.begin >> phase.stage)
        i = 2 * np.floor(draws.spread("time") * (len(fine) // 2)).astype(int)
        here, middle, there = (at_times(schedule, fine[i + shift], batch.data) for shift in (0, 1, 2))
        x = noised(batch.data, draws.normal("noise", batch.data.shape[1:]), here)
        batch = student.asked(batch, draws)
        with torch.no_grad():
            target = aim(roles[TEACHER].answering(batch, guided=phase.stage == 0), x, (here, middle, there))
        squared = (student.answering(batch).estimate(x, here)[0] - target).square().flatten(1).mean(1)
        yield Loss(STUDENT, (weight_of(self.weight, here) * squared).mean())

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        check_rows(self.name, self.end, rows)
        schedule = schedule_of(network)
        return compile("ddim", schedule=schedule, times=self.times(schedule, self.end).tolist())


def aim(teacher: Denoiser, x: Tensor, levels: tuple[Level, Level, Level]) -> Tensor:
    """The estimate with which one step of DDIM goes where two of the teacher go."""
    here, middle, there = levels
    return target_of(x, euler(teacher, euler(teacher, x, here, middle), middle, there), here, there)


def weight_of(kind: str, level: Level) -> Tensor:
    """(B,) of the error of an estimate of the data."""
    snr = (level.alpha / level.sigma).square().reshape(-1)
    return snr + 1 if kind == "snr+1" else snr.clamp(min=1)
