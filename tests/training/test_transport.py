"""Optimal transport deals out the noise of a batch at the least cost, and leaves each class its own."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fewstep as fs
from distillation.gaussian import DIMENSIONS, Gaussian, Samples, Table
from fewstep import schedules
from fewstep.training import STUDENT, Denoising, Role, Run, Settings, train, transport
from fewstep.training.times import Distribution
from fewstep.training.transport import paired

DATA = Gaussian.usual()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cost(noise: Tensor, data: Tensor) -> float:
    return float((noise - data).square().sum())


def test_the_cost_is_the_least_of_all_permutations() -> None:
    noise, data = normal(6, 2, 3), normal(6, 2, 3, seed=1)
    least = min(cost(noise[list(order)], data) for order in permutations(range(6)))
    assert cost(paired(noise, data, {}), data) == pytest.approx(least, rel=1e-5)
    assert least < cost(noise, data) - 1


def of_class(labels: Tensor, noise: Tensor, found: Tensor) -> bool:
    """Whether each class has the noise that it had before, in any order."""
    return all(
        torch.equal(noise[labels == label].sort(0).values, found[labels == label].sort(0).values)
        for label in labels.unique()
    )


def test_noise_stays_within_its_class() -> None:
    labels = torch.arange(60) % 3
    noise, data = normal(60, 1), 4.0 * (labels[:, None] - 1) + normal(60, 1, seed=1)
    found = paired(noise, data, {"label": labels})
    assert of_class(labels, noise, found)
    assert cost(found, data) < cost(noise, data)


def test_across_classes_the_noise_of_each_would_not_be_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_group(condition: Mapping[str, Any], count: int) -> list[list[int]]:
        return [list(range(count))]

    labels = torch.arange(60) % 3
    noise, data = normal(60, 1), 4.0 * (labels[:, None] - 1) + normal(60, 1, seed=1)
    monkeypatch.setattr(transport, "groups_of", one_group)
    found = paired(noise, data, {"label": labels})
    assert not of_class(labels, noise, found)
    assert float(found[labels == 0].mean()) < -0.8


def test_samples_are_alike_where_all_that_they_are_told_is() -> None:
    condition = {
        "context": torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 3.0], [1.0, 2.0]], dtype=torch.bfloat16),
        "label": torch.tensor([0, 0, 0, 1]),
    }
    assert transport.groups_of(condition, 4) == [[0, 1], [2], [3]]
    assert transport.groups_of({}, 3) == [[0, 1, 2]]


STEPS = 6
SCHEDULE = schedules.flow()
TIMES = [row.t for row in fs.compile("euler", schedule=SCHEDULE, steps=STEPS).rows]
SHORT = Settings(steps=130, batch=STEPS * 24, rate=0.08, width=0.1, clip=0, state_every=10**6, log_every=10**6)


def error(method: Denoising, folder: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """Of the covariance of what Euler makes of noise in six steps, by a velocity that is linear in the state.

    The best of these carries mean and covariance of the data exactly in small steps, whatever the pairing.
    """

    def at(self: Distribution, network: fs.Network, share: np.ndarray) -> np.ndarray:
        return np.array(TIMES)[np.floor(share * STEPS).astype(int)]

    monkeypatch.setattr(Distribution, "at", at)
    table = Table(TIMES, torch.zeros(STEPS, DIMENSIONS, DIMENSIONS).double(), torch.zeros(STEPS, DIMENSIONS).double())
    network = fs.Network(table, SCHEDULE, "flow")
    train(Run(method, {STUDENT: Role(network)}, Samples(DATA), SHORT, folder))
    noise = normal(4000, DIMENSIONS, seed=5).double()
    found = fs.sample(Denoising(rows=STEPS).plan(network), network, start=noise)
    assert (found.mean(0) - DATA.mean).abs().max() < 0.08
    return float((found.T.cov() - DATA.matrix(DATA.variances)).abs().max())


def test_a_flow_with_transport_has_the_datas_moments_in_fewer_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = error(Denoising(), tmp_path / "apart", monkeypatch)
    together = error(Denoising(transport=True), tmp_path / "together", monkeypatch)
    assert together < 0.1
    assert apart > 2 * together
