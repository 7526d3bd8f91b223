"""Consistency distillation and training: the estimate is to be the same all along a trajectory of the flow.

With k = sigma / alpha, a state at k and the state on the same trajectory at a smaller r < k are to give one estimate:

    loss = w(k, r) h(f(x_k, k) - stopped f(x_r, r)),      f(x_0, 0) = x_0 exactly

x_r comes from the teacher by a step from x_k (distillation: Song et al. 2023, arXiv 2303.01469, algorithm 2), or from
the same data and noise as x_k (training, algorithm 3 there). Where r is the end of the grid the target is x_r itself,
never an estimate. h is the square, or pseudo-Huber sqrt(|d|^2 + c^2) - c, and w = 1 / (k - r) (Song & Dhariwal 2023,
arXiv 2310.14189, sections 3.3 to 3.5). The target has no average of the student of its own, and both sides have the
same dropout.

Levels are neighbours on a grid that gets finer while it trains, doubling its steps (eq. 8 there); or r follows k
continuously, r = k (1 - q^-(stage + 1) n(k)), n = 1 + 8 sigmoid(-k) (Geng et al. 2024, arXiv 2406.14548), the gap
falling by q with each stage. An r below the smallest k that is trained is 0, and the target the clean data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, number, positive, unknown_name
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.convert import Network
from fewstep.distillation.terms import checks
from fewstep.distillation.terms.span import NOISIEST, noisiest, plan_to, quietest, ratios
from fewstep.distillation.terms.targets import aim, masked
from fewstep.training import STUDENT, TEACHER, Batch, Draws, Loss, Needs, Phase, Roles, one_stage, schedule_of
from fewstep.training.draws import Float
from fewstep.training.levels import at_times, euler, heun, noised, time_of_ratio

STEPS = {"heun": heun, "ddim": euler}
GAPS = ("doubling", "shrinking")
RHO = 7.0
FINEST = 1 << 16
"""Most steps of a grid."""
NORM = 1e-6
"""c of pseudo-Huber that is as good as none: the norm of the difference itself."""
PRESETS: dict[str, dict[str, Any]] = {
    "ect": {"step": None, "gap": "shrinking", "q": 2.0, "stages": 8, "huber": NORM, "mean": -1.1, "deviation": 2.0},
    "ict": {
        "step": None,
        "gap": "doubling",
        "first": 10,
        "stages": 8,
        "huber": 0.00054,
        "mean": -1.1,
        "deviation": 2.0,
    },
}
"""The settings of two papers, neither of which takes a step of the teacher: easy consistency tuning (Geng et al. 2024,
section 4 and appendix), and improved consistency training (Song & Dhariwal 2023, table 1).
"""


@dataclass(frozen=True)
class Consistency:
    """Settings of consistency distillation and training.

    Attributes:
        step: how the teacher goes from k to r: "heun", two evaluations, or "ddim", one; None takes the data's own noise
            in place of a teacher.
        gap: "doubling" takes neighbours on a grid of `first` steps, which doubles `stages` - 1 times;
            "shrinking" the continuous r, whose gap falls `stages` times by the factor `q`.
        least: the smallest k, above 0; where the schedule's own is larger, which networks were trained down to, it is
            that.
        huber: c of pseudo-Huber as a share of the root of the number of values of a sample; 0 is the square.
        mean, deviation: of log k, from which levels are drawn; a deviation of 0 draws all steps of a grid alike.
        rows: of the plan that the student is to be sampled with.
    """

    name: ClassVar[str] = "consistency"
    needs: ClassVar[Needs] = Needs(images=True)

    step: str | None = "heun"
    gap: str = "doubling"
    first: int = 10
    stages: int = 4
    q: float = 4.0
    least: float = 0.002
    huber: float = 0.00054
    mean: float = -1.1
    deviation: float = 2.0
    rows: int = field(default=1)

    def __post_init__(self) -> None:
        if self.step is not None and self.step not in STEPS:
            raise unknown_name("step of the teacher", str(self.step), STEPS)
        checks.check_known(self, gap=GAPS)
        checks.check_counts(self, first=None, stages=None, rows=None)
        if self.first < 2:
            raise InvalidInput(f"first must be a whole number of at least 2, got {self.first}")
        number("mean", self.mean)
        checks.check_weights(self, "huber", "deviation")
        if positive("q", self.q) <= 1:
            raise InvalidInput(f"q must be above 1, got {self.q:g}")
        if positive("least", self.least) >= NOISIEST:
            raise InvalidInput(f"least must be below {NOISIEST:g}, the largest k of a grid, got {self.least:g}")
        if self.gap == "doubling" and self.stages > 1 + math.log2(FINEST / self.first):
            raise InvalidInput(
                f"a grid of {self.first} steps that doubles {self.stages - 1} times has more than {FINEST:,}: give a "
                "smaller first or stages"
            )
        if self.gap == "shrinking" and not self.deviation:
            raise InvalidInput("a shrinking gap draws its levels from a normal of log k: give a deviation above 0")

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        student, schedule = roles[STUDENT], schedule_of(roles[STUDENT].network)
        turn = min(self.stages - 1, int(phase.share * self.stages))
        k, r = self.levels(schedule, turn, draws.spread("time"))
        here, there = (at_times(schedule, time_of_ratio(schedule, each), batch.data) for each in (k, r))
        ends = r <= (self.lowest(schedule) if self.gap == "doubling" else 0.0)
        noise = draws.normal("noise", batch.data.shape[1:])
        x, denoiser = noised(batch.data, noise, here), student.answering(batch)
        with torch.no_grad():
            if self.step is None:
                nearer = noised(batch.data, noise, there)
            else:
                nearer = STEPS[self.step](roles[TEACHER].answering(batch, guided=True), x, here, there)
            target = aim(denoiser, (x, nearer), (here, there), ends, draws)
        distance = self.distance(masked(denoiser, x, here, draws) - target)
        weight = torch.from_numpy(1.0 / (k - r)).to(distance)
        yield Loss(STUDENT, (weight * distance).mean())

    def levels(self, schedule: Schedule, turn: int, share: Float) -> tuple[Float, Float]:
        """The levels k and r < k (B,) of some shares (B,) of the distribution, in the stage `turn`."""
        if self.gap == "doubling":
            grid = self.grid(schedule, self.first * 2**turn)
            i = np.searchsorted(np.cumsum(self.chances(grid)), share, side="right").clip(0, len(grid) - 2)
            return grid[i], grid[i + 1]
        k = ratios(share, self.mean, self.deviation, (self.lowest(schedule), noisiest(schedule)))
        r = k * (1 - self.q ** -(turn + 1.0) * (1 + 8 / (1 + np.exp(k))))
        return k, np.where(r < self.lowest(schedule), 0.0, r)

    def lowest(self, schedule: Schedule) -> float:
        """The smallest k that is trained."""
        return quietest(schedule, self.least)

    def consistent(self, schedule: Schedule) -> tuple[float, float]:
        """The levels k between which the estimate is to be the same all along a trajectory."""
        return self.lowest(schedule), noisiest(schedule)

    def grid(self, schedule: Schedule, steps: int) -> Float:
        """(steps + 1,) levels k, falling, even in k^(1 / 7) (Karras et al. 2022, arXiv 2206.00364, eq. 5)."""
        ends = noisiest(schedule), self.lowest(schedule)
        inner = np.linspace(ends[0] ** (1 / RHO), ends[1] ** (1 / RHO), steps + 1)[1:-1] ** RHO
        return np.array([ends[0], *inner, ends[1]])

    def chances(self, grid: Float) -> Float:
        """(steps,) how often each step of a grid is drawn: the normal of log k between its ends."""
        if not self.deviation:
            return np.full(len(grid) - 1, 1.0 / (len(grid) - 1))
        ends = torch.from_numpy((np.log(grid) - self.mean) / self.deviation)
        mass = np.maximum(-np.diff(torch.special.ndtr(ends).numpy()), 1e-12)
        return mass / mass.sum()

    def distance(self, difference: Tensor) -> Tensor:
        """(B,) of differences (B, ..)."""
        squared = difference.square().flatten(1).sum(1)
        if not self.huber:
            return squared / difference[0].numel()
        c = self.huber * math.sqrt(difference[0].numel())
        return (squared + c**2).sqrt() - c

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        return plan_to(schedule_of(network), self.rows if rows is None else rows, self.mean, self.least)
