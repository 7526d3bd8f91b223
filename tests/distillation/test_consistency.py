"""Consistency asks networks at the levels that they were trained at, and no others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import schedules
from fewstep.distillation import Consistency
from fewstep.distillation.methods import consistency
from fewstep.distillation.terms import targets
from fewstep.training import STUDENT, TEACHER, Batch, Draws, Phase, Role
from fewstep.training.levels import at_times, either, heun, time_of_ratio

SCHEDULES = {
    "beta": schedules.scaled_linear(),
    "zero SNR": schedules.from_betas(np.append(np.linspace(1e-3, 0.05, 99), 1.0)),
    "flow": schedules.flow(shift=3.0),
    "edm": schedules.edm(),
    "edm, another end": schedules.edm(53.7, 0.01),
}
KINDS = {
    "heun": Consistency(stages=3, first=4),
    "ddim, even": Consistency(step="ddim", deviation=0.0, first=3),
    "no teacher": Consistency(step=None),
    "shrinking": Consistency(step="heun", gap="shrinking", q=2.0, stages=4, mean=-3.0),
    "shrinking, no teacher": Consistency(step=None, gap="shrinking", q=4.0, mean=-2.0, deviation=3.0),
}


class Asked(nn.Module):
    """Half its input, and the times that it was asked at."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))
        self.times: list[float] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.times += t.tolist()
        return self.factor * x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_networks_are_asked_between_the_ends_of_their_schedule(name: str, kind: str) -> None:
    """Below the least noisy time, 0 on a beta schedule, and at the clean one, -1, nothing was trained."""
    schedule, method = SCHEDULES[name], KINDS[kind]
    student, teacher = (fs.Network(Asked(), schedule, "v_prediction") for _ in range(2))
    roles = {STUDENT: Role(student), TEACHER: Role(teacher, trained=False)}
    data = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    for step in (0, 5, 9):
        draws = Draws(1, step, range(64), range(64), 64)
        (loss,) = method.losses(roles, Batch(data), Phase(0, 1, 0, 10, step), draws)
        assert torch.isfinite(loss.value)
        loss.value.backward()
    times = student.network.times + teacher.network.times  # type: ignore[union-attr]
    assert min(times) >= schedule.t_min - 1e-6 * (schedule.t_max - schedule.t_min)
    assert max(times) <= np.float32(schedule.t_max)
    plan = dataclasses.replace(method, rows=4, mean=-9.0).plan(student)
    assert all(row.t >= schedule.t_min for row in plan.rows)
    assert bool(teacher.network.times) == (method.step is not None)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", SCHEDULES)
def test_levels_end_at_the_least_noise_of_the_schedule_or_of_the_method(name: str) -> None:
    schedule = SCHEDULES[name]
    own = float(schedule.ratio(schedule.t_min))
    assert Consistency(least=1e-5).grid(schedule, 8)[-1] == pytest.approx(max(own, 1e-5))
    assert Consistency(least=0.5).grid(schedule, 8)[-1] == 0.5
    grid = Consistency().grid(schedule, 8)
    assert (np.diff(grid) < 0).all()
    k, r = Consistency(gap="shrinking", least=0.5).levels(schedule, 2, (np.arange(500) + 0.5) / 500)
    assert k.min() == 0.5
    assert ((r == 0) | (r >= 0.5)).all()
    assert (r == 0).any()
    assert (r > 0).any()


def test_a_step_to_clean_data_is_of_first_order_beside_others_of_second() -> None:
    schedule = schedules.flow()
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    network = fs.Network(Asked(), schedule, "sample")
    times = np.array([0.6, 0.6]), np.array([0.2, 0.0])
    here, there = (at_times(schedule, each, x) for each in times)
    found = heun(network, x, here, there)
    assert torch.allclose(found[1], x[1] / 2)
    slope = (x[0] / 0.4 - x[0] / 2) / 1.5
    guess = x[0] / 0.4 + (0.25 - 1.5) * slope
    end = (guess - 0.8 * guess / 2) / 0.25
    assert torch.allclose(found[0], 0.8 * (x[0] / 0.4 + (0.25 - 1.5) * (slope + end) / 2))
    mixed = either([True, False], here, there, x)
    assert mixed.t.tolist() == [0.6, 0.0]
    assert mixed.sigma.flatten().tolist() == [0.6, 0.0]


def test_the_ends_of_a_schedule_have_times_on_it() -> None:
    for schedule in SCHEDULES.values():
        for k in (0.0, 1e-3, min(80.0, float(schedule.ratio(schedule.t_max))) * (1 + 1e-15)):
            assert schedule.t_clean <= float(time_of_ratio(schedule, k)) <= schedule.t_max
        assert float(time_of_ratio(schedule, 0.0)) == schedule.t_clean


class Dropped(nn.Module):
    """Ones, whatever the state, with dropout: two answers are equal where their masks are."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return nn.functional.dropout(self.factor.expand_as(x), 0.5)


def test_both_sides_have_one_dropout_mask_and_the_global_generator_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = fs.Network(Dropped(), schedules.flow(), "sample")
    method = Consistency(step=None, huber=0.0)
    monkeypatch.setattr(targets, "ended", lambda x, level, ends, estimate: estimate)

    def loss(step: int) -> float:
        draws = Draws(1, step, range(16), range(16), 16)
        phase = Phase(0, 1, 0, 10, step)
        (found,) = method.losses({STUDENT: Role(network)}, Batch(torch.zeros(16, 8)), phase, draws)
        return float(found.value.detach())

    before = torch.get_rng_state()
    assert loss(0) == loss(1) == 0
    assert torch.equal(before, torch.get_rng_state())
    for module in (consistency, targets):
        monkeypatch.setattr(module, "masked", lambda denoiser, x, level, draws: denoiser.estimate(x, level)[0])
    assert loss(0) > 1
