"""Reflow on Gaussian data: the velocity of the straightened flow is known, and one step of Euler is exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep import InvalidInput, schedules
from fewstep.distillation import Reflow
from fewstep.training import STUDENT, Batch, Draws, Role, Run, Settings, train

from .gaussian import DIMENSIONS, Gaussian, Samples, Table

SCHEDULE = schedules.flow()
DATA = Gaussian.usual()
TIMES = [0.1, 0.4, 0.7, 0.9995]
FAST = Settings(steps=450, batch=48, rate=0.05, width=0, clip=0, state_every=10**6, log_every=10**6)


class Straight(Samples):
    """Pairs of noise e and the end of its way, M e + m with M the root of the covariance."""

    def __init__(self, swapped: bool = False) -> None:
        super().__init__(DATA)
        self.swapped = swapped

    def batch(self, numbers: Sequence[int]) -> Batch:
        noise = Draws(5, 0, numbers, range(len(numbers)), len(numbers)).normal("pair", (DIMENSIONS,)).double()
        data = self.data.data(noise)
        return Batch(noise, data) if self.swapped else Batch(data, noise)


def trained(folder: Path, pairs: Straight, monkeypatch: pytest.MonkeyPatch) -> Table:
    """The velocity at the times of a table."""

    def at(self: Reflow, schedule: object, share: np.ndarray) -> np.ndarray:
        return np.array(TIMES)[np.floor(share * len(TIMES)).astype(int)]

    monkeypatch.setattr(Reflow, "at", at)
    table = Table(TIMES, torch.zeros(4, 3, 3).double(), torch.zeros(4, 3).double())
    roles = {STUDENT: Role(fs.Network(table, SCHEDULE, "flow"))}
    train(Run(Reflow(), roles, pairs, FAST, folder))
    return table


def far(table: Table) -> float:
    """From (I - M) ((1 - t) M + t I)^-1 (x - (1 - t) m) - m."""
    root, one = DATA.matrix(DATA.variances.sqrt()), torch.eye(3).double()
    found = []
    for t in TIMES:
        wanted = (one - root) @ torch.linalg.inv((1 - t) * root + t * one)
        matrix, offset = table.at(t)
        found += [(matrix - wanted).abs().max(), (offset + DATA.mean + (1 - t) * wanted @ DATA.mean).abs().max()]
    return float(max(found))


def test_the_velocity_is_that_of_straight_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = trained(tmp_path, Straight(), monkeypatch)
    assert far(table) < 1e-3
    noise = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plan = Reflow(rows=1).plan(fs.Network(table, SCHEDULE, "flow"))
    drawn = fs.sample(plan, fs.Network(table, SCHEDULE, "flow"), start=noise)
    assert torch.allclose(drawn, DATA.data(noise), atol=5e-3)


def test_swapped_pairs_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert far(trained(tmp_path, Straight(swapped=True), monkeypatch)) > 0.1


@pytest.mark.parametrize("draw", [lambda u: u, lambda u: 1 - u])
def test_times_near_both_ends_come_more_often(draw: Callable[[np.ndarray], np.ndarray]) -> None:
    """The density exp(4 u) + exp(-4 u), u from -1/2 to 1/2: a tenth of the range at an end has 20.4% of the times."""
    share = draw((np.arange(100_000) + 0.5) / 100_000)
    times = (Reflow(times="ends").at(SCHEDULE, share) - SCHEDULE.t_min) / (SCHEDULE.t_max - SCHEDULE.t_min)
    expected = (np.sinh(2.0) - np.sinh(1.6)) / (2 * np.sinh(2.0))
    assert np.mean(times < 0.1) == pytest.approx(expected, abs=1e-3)
    assert np.mean(times > 0.9) == pytest.approx(expected, abs=1e-3)
    assert Reflow().at(SCHEDULE, np.array([0.0, 1.0])).tolist() == [SCHEDULE.t_min, SCHEDULE.t_max]


def test_other_times_are_refused() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'ends'"):
        Reflow(times="end")
