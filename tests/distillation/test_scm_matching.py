"""Consistency with a share of distribution matching: both have one optimum, and the share is in the gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep.distillation import ContinuousConsistency, DistributionMatching
from fewstep.distillation.methods import dmd
from fewstep.distillation.terms.derivative import DERIVATIVE
from fewstep.distillation.terms.matching import FAKE, FAKE_SCORE, between
from fewstep.training import STUDENT, Draws, Loss, Phase, Role, Run, Settings, further_roles, train
from fewstep.zoo import container

from .gaussian import DIMENSIONS
from .smooth import DATA, FLOW, Single, doubled, far, network, roles_of, whole

PLAIN = ContinuousConsistency(deviation=2.0, sigma_data=0.7, warmup=0.1, derivative="jvp")
SHARE = 0.5
"""More than is usual, so that a fault in it shows."""
MATCHED = replace(PLAIN, matching=SHARE, ratio=1)
FAST = Settings(steps=250, batch=48, rate=0.005, width=0, clip=0, state_every=10**6, log_every=10**6)
FIRST = Phase(0, 1, 0, 100, 0)
COUNT = 24


def trained(folder: Path, settings: Settings = FAST) -> float:
    """How far a student that began as its teacher is from the end of the flow."""
    data, roles = Single(), roles_of(network())
    roles = {**roles, **further_roles(MATCHED, roles, data.batch(range(16)))}
    train(Run(MATCHED, roles, data, settings, folder))
    return far(roles[STUDENT].network)


def test_a_student_leads_to_the_end_of_the_flow(tmp_path: Path) -> None:
    assert far(network()) > 0.4
    assert trained(tmp_path) < 0.02


class Score(nn.Module):
    """The best velocity of a flow to N(mean, covariance)."""

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        super().__init__()
        self.mean, self.covariance = nn.Parameter(mean), nn.Parameter(covariance)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.stack([self.one(state, float(time)) for state, time in zip(x, t, strict=True)])

    def one(self, x: Tensor, t: float) -> Tensor:
        about = x - (1 - t) * self.mean
        noisy = (1 - t) ** 2 * self.covariance + t**2 * torch.eye(DIMENSIONS).to(x)
        data = self.mean + (1 - t) * self.covariance @ torch.linalg.solve(noisy, about)
        return (x - data) / t


def gradient_of(method: ContinuousConsistency, roles: Mapping[str, Any]) -> Tensor:
    """Of the losses of a student, of all its weights."""
    batch, _ = whole(COUNT)
    for weight in roles[STUDENT].weights.values():
        weight.grad = None
    for loss in method.losses(roles, batch, FIRST, draws()):
        if loss.role == STUDENT:
            loss.value.backward()
    return flat([weight.grad for weight in roles[STUDENT].weights.values()])


def draws() -> Draws:
    return Draws(0, 0, range(COUNT), range(COUNT), COUNT)


def flat(parts: Any) -> Tensor:
    return torch.cat([torch.zeros(0).double(), *(part.flatten() for part in parts if part is not None)])


def shares_apart() -> float:
    """How far the share's part of the student's gradient is from the analytic one, with an exact fake score."""
    batch, _ = whole(COUNT)
    roles: Any = roles_of(network())
    roles |= further_roles(MATCHED, roles, replace(batch, data=batch.data.float()))
    roles = doubled(roles)
    student = roles[STUDENT].network
    (row,) = MATCHED.plan(student).rows

    def drawn(start: Tensor) -> Tensor:
        return student(row.sigma * start, row.t)

    mean = drawn(torch.zeros(1, DIMENSIONS).double()).detach()[0]
    matrix = torch.stack([drawn(torch.eye(DIMENSIONS).double()[i : i + 1]).detach()[0] - mean for i in range(3)])
    covariance = matrix.T @ matrix
    roles[FAKE] = Role(fs.Network(Score(mean, covariance), FLOW, "flow", dtype=torch.float64))
    x = drawn(draws().normal("start", (DIMENSIONS,)).double())
    noise = draws().normal("noise of the student", (DIMENSIONS,)).double()
    t = torch.from_numpy(between(FLOW, 0.02 + 0.96 * draws().spread("time of the student")))[:, None]
    k = t / (1 - t)
    noisy = x.detach() + k * noise

    def score(mean: Tensor, covariance: Tensor) -> Tensor:
        wide = covariance + k[..., None] ** 2 * torch.eye(DIMENSIONS)
        return -torch.linalg.solve(wide, (noisy - mean)[..., None])[..., 0]

    real = score(DATA.mean, DATA.matrix(DATA.variances))
    scale = (x.detach() - noisy - k**2 * real).abs().mean(1, keepdim=True)
    wanted = k**2 * (score(mean, covariance) - real) / scale
    parts = torch.autograd.grad(
        (wanted * x).sum() / x.numel(), list(roles[STUDENT].weights.values()), allow_unused=True
    )
    analytic = SHARE * flat(parts)
    assert analytic.abs().max() > 1e-3
    plain = {name: role for name, role in roles.items() if name != FAKE}
    return float((gradient_of(MATCHED, roles) - gradient_of(PLAIN, plain) - analytic).abs().max())


def test_the_share_is_in_the_gradient_as_the_analytic_one() -> None:
    assert shares_apart() < 1e-6


def the_other_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    real = dmd.direction
    monkeypatch.setattr(dmd, "direction", lambda x, ours, theirs: -real(x, ours, theirs))


def the_share_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    real = DistributionMatching.of_plans

    def of_plans(self: DistributionMatching, *given: Any) -> Iterator[Loss]:
        for loss in real(self, *given):
            yield loss._replace(value=loss.value / SHARE)

    monkeypatch.setattr(DistributionMatching, "of_plans", of_plans)


def no_matching(monkeypatch: pytest.MonkeyPatch) -> None:
    real = DistributionMatching.of_plans

    def of_plans(self: DistributionMatching, *given: Any) -> Iterator[Loss]:
        for loss in real(self, *given):
            yield loss._replace(value=0 * loss.value)

    monkeypatch.setattr(DistributionMatching, "of_plans", of_plans)


@pytest.mark.parametrize("fault", [the_other_sign, the_share_is_ignored, no_matching])
def test_a_fault_in_the_share_is_seen(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert shares_apart() > 1e-3


def test_away_from_the_data_a_student_does_not_lead_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    the_other_sign(monkeypatch)
    assert not trained(tmp_path, replace(FAST, steps=120)) < 0.05


def test_the_student_takes_one_step_to_several_of_the_fake_score(tmp_path: Path) -> None:
    method, data = replace(MATCHED, ratio=4), Single()
    roles: Any = roles_of(network())
    roles |= further_roles(method, roles, data.batch(range(16)))
    train(Run(method, roles, data, replace(FAST, steps=10, batch=8, state_every=10), tmp_path))
    tensors = container.inspect(tmp_path / "states/step-00000010/state.safetensors").tensors()
    assert (int(tensors["student.updates"]), int(tensors["fake.updates"])) == (3, 10)
    assert method.cycle == 4
    assert replace(MATCHED, ratio=None).cycle == 5
    held_out = data.batch(range(COUNT))
    with torch.no_grad():
        assert 0.2 < method.signs(roles, held_out, draws())[FAKE_SCORE] < 0.7  # it draws the mean, which is simple


def test_without_a_share_all_is_as_it_was() -> None:
    batch = Single().batch(range(16))
    roles: Any = roles_of(network())
    found = further_roles(PLAIN, roles, batch)
    assert set(found) == {DERIVATIVE}
    assert PLAIN.cycle == 1
    assert PLAIN.signs({**roles, **found}, batch, draws()) == {}
    assert roles[STUDENT].module.training
    further_roles(MATCHED, roles, batch)
    assert not roles[STUDENT].module.training  # dropout would change what it draws
    losses = list(PLAIN.losses({**roles, **found}, batch, FIRST, Draws(0, 0, range(16), range(16), 16)))
    assert [loss.role for loss in losses] == [STUDENT]
