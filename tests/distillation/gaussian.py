"""Gaussian data with unequal variances, whose denoiser and flow are known, and networks that are linear in the state.

Data N(m, U diag(l) U^T). In x / alpha about m, each direction of U is on its own: E[x0 | x] = l / (l + k^2) x, and a
step of DDIM from k to r multiplies by (l + r k) / (l + k^2), the flow itself by sqrt((l + r^2) / (l + k^2)).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep.distillation.pictures.recording import Recorded
from fewstep.training import Batch, Draws

DIMENSIONS = 3


class Gaussian(NamedTuple):
    """The data: mean (d,), directions (d, d) as columns, variances (d,), float64."""

    mean: Tensor
    directions: Tensor
    variances: Tensor

    @staticmethod
    def usual() -> Gaussian:
        generator = torch.Generator().manual_seed(1)
        directions = torch.linalg.qr(torch.randn(DIMENSIONS, DIMENSIONS, generator=generator, dtype=torch.float64))[0]
        return Gaussian(torch.tensor([0.5, -0.3, 0.1]).double(), directions, torch.tensor([1.0, 0.25, 0.04]).double())

    def matrix(self, by_direction: Tensor) -> Tensor:
        """(d, d) of factors (d,) along the directions."""
        return self.directions @ torch.diag(by_direction) @ self.directions.T

    def data(self, z: Tensor) -> Tensor:
        """Data from unit noise (B, d)."""
        return self.mean + z @ self.matrix(self.variances.sqrt())

    def estimate(self, k: float) -> Tensor:
        """(d,) factors of E[x0 | x] - m of (x / alpha) - m, along the directions."""
        return self.variances / (self.variances + k**2)

    def ddim(self, k: float, r: float) -> Tensor:
        """(d,) factors of a step of DDIM."""
        return (self.variances + r * k) / (self.variances + k**2)

    def heun(self, k: float, r: float) -> Tensor:
        """(d,) factors of a step of Heun in x / alpha, of DDIM where r is 0."""
        if r == 0:
            return self.ddim(k, r)
        slope = k / (self.variances + k**2)
        return 1 + (r - k) / 2 * (slope + r / (self.variances + r**2) * self.ddim(k, r))

    def flow(self, k: float, r: float = 0.0) -> Tensor:
        """(d,) factors of the exact flow."""
        return ((self.variances + r**2) / (self.variances + k**2)).sqrt()


class Table(nn.Module):
    """A network that predicts the data, linear in the state at each of some times."""

    def __init__(self, times: Sequence[float], matrices: Tensor, offsets: Tensor) -> None:
        super().__init__()
        self.times = torch.tensor(times, dtype=torch.float64)
        self.matrices, self.offsets = nn.Parameter(matrices.clone()), nn.Parameter(offsets.clone())

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        at = (t[:, None].double() - self.times).abs().argmin(1)
        return torch.einsum("bij,bj->bi", self.matrices[at], x) + self.offsets[at]

    @torch.no_grad()
    def at(self, time: float) -> tuple[Tensor, Tensor]:
        """(d, d) and (d,) at a time."""
        i = int((self.times - time).abs().argmin())
        return self.matrices[i].clone(), self.offsets[i].clone()


def exact(data: Gaussian, schedule: fs.schedules.Schedule, times: Sequence[float]) -> fs.Network:
    """The best denoiser at some times of a schedule."""
    rows = [(float(schedule.alpha(t)), float(schedule.ratio(t))) for t in times]
    matrices = torch.stack([data.matrix(data.estimate(k)) / alpha for alpha, k in rows])
    offsets = torch.stack([data.mean - alpha * m @ data.mean for (alpha, _), m in zip(rows, matrices, strict=True)])
    return fs.Network(Table(times, matrices, offsets), schedule, "sample")


class Samples:
    """Endless data, sample by number; with a `plan`, pairs of noise and what it makes of them by `network`, and all the
    states on the way.
    """

    count = None
    identity: ClassVar[dict[str, str]] = {"data": "gaussian"}

    def __init__(self, data: Gaussian, pairs: fs.Plan | None = None, network: fs.Network | None = None) -> None:
        self.data, self.pairs, self.network = data, pairs, network

    def batch(self, numbers: Sequence[int]) -> Batch:
        draws = Draws(5, 0, numbers, range(len(numbers)), len(numbers))
        if self.pairs is None:
            return Batch(self.data.data(draws.normal("data", (DIMENSIONS,)).double()))
        noise = draws.normal("pair", (DIMENSIONS,)).double()
        assert self.network is not None
        way = Recorded(self.network)
        ends = fs.sample(self.pairs, way, start=noise * self.pairs.entry[1])
        return Batch(ends, noise, along=torch.stack(way.states, dim=1))


def product(factors: Sequence[Tensor]) -> Tensor:
    """(d,) of several steps."""
    return torch.stack(list(factors)).prod(0)


def far(student: fs.Network, data: Gaussian, time: float, factors: Tensor) -> float:
    """The largest difference between a student's map of states at a time and the one with known factors in x / alpha
    about the mean, in units of the state, whose variance is about 1 on the schedules of these tests.
    """
    table = student.network
    assert isinstance(table, Table)
    assert student.schedule is not None
    matrix, offset = table.at(time)
    alpha = float(student.schedule.alpha(time))
    wanted = data.matrix(factors) / alpha
    centre = offset - (data.mean - alpha * wanted @ data.mean)
    return float(max((matrix - wanted).abs().max(), centre.abs().max()))


def ratios(schedule: fs.schedules.Schedule, times: Sequence[float]) -> list[float]:
    """sigma / alpha at some times."""
    return [float(k) for k in np.atleast_1d(schedule.ratio(np.asarray(times)))]
