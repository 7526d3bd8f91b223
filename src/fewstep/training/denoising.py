"""Training on data: the network learns to see the data in noisy states, in what it predicts itself.

With x = alpha x0 + sigma eps and the estimate x0 = skip x + out F of `fewstep.denoise.convert`, the best output is

    F* = (x0 - skip x) / out = (1 - skip alpha) / out x0 - skip sigma / out eps

eps, x0, v, the velocity eps - x0 of a flow, or what EDM's preconditioning leaves to the network. The loss is the mean
of (F - F*)^2: that of Ho et al. 2020 (arXiv 2006.11239, eq. 14) for epsilon, of conditional flow matching (Lipman et
al. 2022, arXiv 2210.02747, eq. 23) for flow, and for EDM the paper's own weighting, which is 1 / out^2 on the error of
x0 (Karras et al. 2022, arXiv 2206.00364, eq. 8). With min-SNR (Hang et al. 2023, arXiv 2303.09556, eq. 8) the error of
x0 counts min(SNR, gamma), so that of F counts

    min(SNR, gamma) out^2,      SNR = alpha^2 / sigma^2

which is min(SNR, gamma) / SNR for epsilon and, variance preserving, min(SNR, gamma) / (SNR + 1) for v.

Some samples are told the empty condition in place of their own, so that one network learns the unconditional model that
guidance needs too (Ho & Salimans 2022, arXiv 2207.12598).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.plan import Plan
from fewstep.core.schedule import Float, FlowSchedule, Schedule
from fewstep.denoise.convert import LEAST_ALPHA, Network
from fewstep.solvers.compiler import compile
from fewstep.solvers.registry import SAMPLERS
from fewstep.training.batch import Batch
from fewstep.training.draws import Draws
from fewstep.training.levels import at_times, column, noised
from fewstep.training.method import Loss, Needs, Phase, one_stage
from fewstep.training.roles import STUDENT, Roles, schedule_of
from fewstep.training.times import TIMES, distribution
from fewstep.training.transport import paired

USUAL = {"flow": ("euler", "trailing"), "edm": ("dpmpp-2m", "karras")}
"""Sampler and grid by the kind of schedule."""
ELSEWHERE = ("dpmpp-2m", "trailing")
USUAL_DROPOUT = 0.1


@dataclass(frozen=True)
class Denoising:
    """Settings of training on data.

    Attributes:
        times: how the levels of noise are drawn, one of `TIMES`; None is what suits the network (see
            `fewstep.training.times`). `mean` and `deviation` of log(sigma / alpha), where they have some; None is the
            usual.
        min_snr: gamma of min-SNR, 5 in its paper; None weighs all levels alike in the network's own output.
        dropout: share of the samples that are told the empty condition, 0 to below 1; None is 0.1 where there is one.
        transport: whether noise is paired to data by optimal transport, for flows; among the samples of a batch, or of
            a part of one where it is done in several.
        rows: evaluations of the plan that the network is to be sampled with, by `sampler` on `grid`; None are Euler on
            the grid of a flow, and DPM++(2M) elsewhere.
    """

    name: ClassVar[str] = "denoising"
    needs: ClassVar[Needs] = Needs(images=True)

    times: str | None = None
    mean: float | None = None
    deviation: float | None = None
    min_snr: float | None = None
    dropout: float | None = None
    transport: bool = False
    rows: int = 20
    sampler: str | None = None
    grid: str | None = None

    def __post_init__(self) -> None:
        if self.times is not None and self.times not in TIMES:
            raise unknown_name("distribution of times", str(self.times), TIMES)
        for name in ("mean", "deviation", "min_snr", "dropout"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InvalidInput(f"{name} must be a finite number, got {value!r}")
            if name in ("deviation", "min_snr") and value <= 0:
                raise InvalidInput(f"{name} must be above 0, got {value!r}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise InvalidInput(f"dropout is a share of the samples, at least 0 and below 1, got {self.dropout!r}")
        if type(self.transport) is not bool:
            raise InvalidInput(f"transport is True or False, got {self.transport!r}")
        if type(self.rows) is not int or self.rows < 1:
            raise InvalidInput(f"rows must be a whole number of at least 1, got {self.rows!r}")
        if self.sampler is not None and self.sampler not in SAMPLERS:
            raise unknown_name("sampler", str(self.sampler), SAMPLERS)

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        network = roles[STUDENT].network
        self.check(network)
        schedule = schedule_of(network)
        drawn = distribution(self.times, self.mean, self.deviation, network)
        level = at_times(schedule, drawn.at(network, draws.spread("time")), batch.data)
        share = self.share(batch)
        condition = dropped(batch, draws.uniform("dropout") < share) if share else batch.condition
        noise = draws.normal("noise", batch.data.shape[1:]).to(batch.data.dtype)
        if self.transport:
            noise = paired(noise, batch.data, condition)
        output = network.given(condition).output(noised(batch.data, noise, level), level)
        of_data, of_noise, weight = (column(value, batch.data) for value in self.target(network, level.host))
        error = (output - (of_data * batch.data + of_noise * noise)).square()
        yield Loss(STUDENT, (weight * error).mean())

    def share(self, batch: Batch) -> float:
        """The share of a batch that is told the empty condition."""
        if self.dropout is not None:
            return self.dropout
        return 0.0 if batch.negative is None or not batch.condition else USUAL_DROPOUT

    def target(self, network: Network, host: Any) -> tuple[Float, Float, Float]:
        """Of some levels, the factors (B,) of x0 and of the noise in what the network is to predict, and the weight."""
        t, alpha, sigma = np.asarray(host, np.float64).T
        skip, out = (np.broadcast_to(value, t.shape) for value in network.coefficients(t, alpha, sigma))
        weight = np.ones_like(t)
        if self.min_snr is not None:
            weight = np.minimum((alpha / sigma) ** 2, self.min_snr) * out**2
        return (1 - skip * alpha) / out, -skip * sigma / out, weight

    def plan(self, network: Network, rows: int | None = None) -> Plan:
        self.check(network)
        schedule = schedule_of(network)
        usual = USUAL.get(schedule.kind, ELSEWHERE)
        sampler, grid = self.sampler or usual[0], self.grid or usual[1]
        return plan_of(schedule, sampler, self.rows if rows is None else rows, grid)

    def check(self, network: Network) -> None:
        """Raise `InvalidInput` where these settings do not fit a network."""
        schedule = schedule_of(network)
        if network.prediction in ("epsilon", "edm") and float(schedule.alpha(schedule.t_max)) < LEAST_ALPHA:
            raise InvalidInput(
                f"a network that predicts {network.prediction} says nothing of the data where alpha is 0, at the end "
                f"of this {schedule.kind} schedule (zero terminal SNR): train one that predicts v_prediction, flow or "
                "sample, or use a schedule that ends before"
            )
        if self.transport and not isinstance(schedule, FlowSchedule):
            raise InvalidInput(
                f"transport pairs noise and data for the ways of a flow, and the schedule is {schedule.kind}: leave it "
                "out, or train a flow"
            )
        distribution(self.times, self.mean, self.deviation, network)


def plan_of(schedule: Schedule, sampler: str, rows: int, grid: str) -> Plan:
    """The plan of so many rows. Raises `InvalidInput` for a sampler that takes another number of them."""
    plan = compile(sampler, schedule=schedule, steps=rows, grid=grid)
    if len(plan.rows) != rows:
        raise InvalidInput(
            f"{sampler} takes {len(plan.rows)} rows in {rows} steps: use one with a row a step, such as euler or "
            "dpmpp-2m"
        )
    return plan


def dropped(batch: Batch, chosen: np.ndarray) -> Mapping[str, Any]:
    """The conditions of a batch, the empty one for the samples (B,) that are chosen.

    Raises `InvalidInput` where there is none, or it differs from the others in more than the values of tensors.
    """
    negative = batch.negative
    if negative is None or not batch.condition:
        raise InvalidInput(
            "these data have no empty condition to tell some samples in place of their own: set dropout=0"
        )
    if negative.keys() != batch.condition.keys():
        raise InvalidInput(
            f"the empty condition names {sorted(negative)}, and the others name {sorted(batch.condition)}: give the "
            "same arguments"
        )
    return {name: mixed(name, value, negative[name], chosen) for name, value in batch.condition.items()}


def mixed(name: str, own: Any, empty: Any, chosen: np.ndarray) -> Any:
    """An argument of the network, that of the empty condition where a sample is chosen."""
    if not isinstance(own, Tensor) or not isinstance(empty, Tensor):
        if own is empty or (type(own) is type(empty) and own == empty):
            return own
        raise InvalidInput(f"the argument {name!r} differs in the empty condition, and is not a tensor (B, ..) in both")
    if own.shape != empty.shape:
        raise InvalidInput(
            f"the argument {name!r} has shape {tuple(own.shape)}, in the empty condition {tuple(empty.shape)}: give "
            "both one length"
        )
    return torch.where(column(chosen, own).bool(), empty, own)
