"""Training on data: a network learns to tell the data from the noise, whatever it predicts.

With x0 = skip x + out F (see `fewstep.denoise.convert`) the network's output is to be F* = (x0 - skip x) / out: the
noise, the velocity, the data, or EDM's preconditioned target of unit variance, on which the weight of 1 is that of
Karras et al. 2022 (arXiv 2206.00364, eq. 8). On a flow this is flow matching (Lipman et al. 2023, arXiv 2210.02747).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.base import Level
from fewstep.denoise.convert import Network
from fewstep.solvers.compiler import compile
from fewstep.training.draws import Draws
from fewstep.training.levels import at_times, noised
from fewstep.training.method import STUDENT, Batch, Loss, Needs, Phase, Roles, one_stage, schedule_of
from fewstep.training.times import Times


@dataclass(frozen=True)
class Denoising:
    """Train on images, or on pairs of noise and data, as reflow does.

    Attributes:
        times: their distribution.
        min_snr: the weight of an estimate of the data is min(alpha^2 / sigma^2, min_snr) (Hang et al. 2023, arXiv
            2303.09556: 5); 0 leaves the weight of the network's own output at 1.
        dropped: the share of samples whose condition is replaced by the negative one, for guidance (Ho & Salimans 2022,
            arXiv 2207.12598).
        transport: pair noise and data of a batch, those of one condition among themselves, so that the way between
            them is short (Tong et al. 2024, arXiv 2302.00482).
        rows: of the plan that the network is to be sampled with, of Euler on a flow and of DPM++(2M) elsewhere.
    """

    name: ClassVar[str] = "denoising"
    needs: ClassVar[Needs] = Needs(images=True)

    times: Times = field(default_factory=Times)
    min_snr: float = 0.0
    dropped: float = 0.0
    transport: bool = False
    rows: int = 20

    def __post_init__(self) -> None:
        if not 0 <= self.dropped < 1:
            raise InvalidInput(f"the share of conditions to drop must be in [0, 1), got {self.dropped!r}")
        if not self.min_snr >= 0:
            raise InvalidInput(f"min_snr must be at least 0, got {self.min_snr!r}")

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        network = roles[STUDENT].network
        noise = batch.noise
        if noise is None:
            noise = draws.normal("noise", batch.data.shape[1:])
            noise = paired(batch.data, noise, batch.condition) if self.transport else noise
        schedule = schedule_of(network)
        level = at_times(schedule, self.times.at(schedule, draws.spread("time")), batch.data)
        x = noised(batch.data, noise, level)
        condition = self.kept(batch, draws)
        squared, weight = errors(network.given(condition), x, batch.data, level, self.min_snr)
        yield Loss(STUDENT, (weight * squared).mean())

    def kept(self, batch: Batch, draws: Draws) -> Mapping[str, Any]:
        """The conditions, some replaced by the negative one."""
        if not self.dropped:
            return batch.condition
        if batch.negative is None:
            raise InvalidInput("conditions can be dropped only where the network knows what stands for none")
        gone = torch.from_numpy(draws.uniform("dropped") < self.dropped).to(batch.data.device)
        found = {}
        for name, value in batch.condition.items():
            mask = gone.reshape(-1, *[1] * (value.ndim - 1))
            found[name] = torch.where(mask, batch.negative[name], value)
        return found

    def plan(self, network: Network) -> Plan:
        sampler = "euler" if network.prediction == "flow" else "dpmpp-2m"
        return compile(sampler, schedule=schedule_of(network), steps=self.rows, grid="trailing")


def errors(network: Network, x: Tensor, data: Tensor, level: Level, min_snr: float = 0.0) -> tuple[Tensor, Tensor]:
    """(B,) mean squares of F - F*, and their weights."""
    skip, out = network.coefficients_at(level)
    target = (data - skip * x) / out
    squared = (network.output(x, level) - target).square().flatten(1).mean(1)
    if not min_snr:
        return squared, torch.ones_like(squared)
    snr = (level.alpha / level.sigma).square()
    return squared, (snr.clamp(max=min_snr) * torch.as_tensor(out).square()).reshape(-1).expand_as(squared)


def paired(data: Tensor, noise: Tensor, condition: Mapping[str, Any]) -> Tensor:
    """The noise (B, ..) in the order in which the sum of |x0 - eps|^2 is least, within equal conditions."""
    result = noise.clone()
    for group in groups(condition, len(data)):
        cost = torch.cdist(data[group].flatten(1).double(), noise[group].flatten(1).double()).square()
        rows, columns = linear_sum_assignment(cost.cpu().numpy())
        result[torch.tensor(group)[rows]] = noise[torch.tensor(group)[columns]]
    return result


def groups(condition: Mapping[str, Any], count: int) -> list[list[int]]:
    """The samples of a batch, those of equal conditions together."""
    found: dict[bytes, list[int]] = {}
    values = [np.ascontiguousarray(value.detach().float().cpu().numpy()) for value in condition.values()]
    for i in range(count):
        found.setdefault(b"".join(value[i].tobytes() for value in values), []).append(i)
    return list(found.values())
