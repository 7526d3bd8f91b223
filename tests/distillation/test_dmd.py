"""Distribution matching: its gradient is the analytic one, and a student ends with the data's mean and covariance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fewstep as fs
from fewstep import InvalidInput, schedules
from fewstep.distillation import DistributionMatching
from fewstep.distillation.methods import dmd
from fewstep.distillation.terms import matching, simulation
from fewstep.distillation.terms.matching import FAKE
from fewstep.training import (
    STUDENT,
    Batch,
    Diverged,
    Draws,
    Role,
    Run,
    Settings,
    further_roles,
    one_stage,
    student_of,
    train,
)

from .gaussian import DIMENSIONS, Gaussian, Samples, exact

SCHEDULE = schedules.scaled_linear()
DATA = Gaussian.usual()
LEVELS, SET = 5, 12
"""Levels at which scores are compared, and samples at each."""
TIMES = [float(t) for t in matching.between(SCHEDULE, (np.arange(LEVELS) + 0.5) / LEVELS)]
FIRST = float(SCHEDULE.t_max)
NEAR, FAR = 1e-2, 5e-2
FAST = Settings(steps=300, batch=LEVELS * SET, rate=0.04, width=0, clip=0, state_every=10**6, log_every=10**6)


@pytest.fixture(autouse=True)
def exact_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each level has the same samples, whose start and noise have their moments exactly, so that a step is that of the
    expectation.
    """
    generator = torch.Generator().manual_seed(3)
    raw = torch.randn(SET, 2 * DIMENSIONS, generator=generator, dtype=torch.float64)
    z = torch.linalg.qr(raw - raw.mean(0))[0] * SET**0.5

    def normal(draws: Draws, purpose: str, shape: Sequence[int]) -> Tensor:
        part = slice(0, DIMENSIONS) if purpose in ("start", "data") else slice(DIMENSIONS, None)
        return z[[place % SET for place in draws.places], part]

    def spread(draws: Draws, purpose: str) -> np.ndarray:
        return (np.array(draws.places) + 0.5) / draws.total

    def between(schedule: Any, share: Any) -> np.ndarray:
        return np.array(TIMES)[np.clip(np.floor(np.asarray(share) * LEVELS).astype(int), 0, LEVELS - 1)]

    monkeypatch.setattr(Draws, "normal", normal)
    monkeypatch.setattr(Draws, "spread", spread)
    monkeypatch.setattr(dmd, "between", between)


class Case:
    """A student that is linear in its noise, beside the exact score of the data."""

    def __init__(self, method: DistributionMatching) -> None:
        self.method = method
        self.roles = student_of(exact(DATA, SCHEDULE, [*TIMES, FIRST]))
        self.roles |= further_roles(method, self.roles, Samples(DATA).batch(range(4)))
        with torch.no_grad():  # it begins with too little of everything
            table: Any = self.roles[STUDENT].module
            table.matrices[-1] = 0.5 * torch.eye(DIMENSIONS)
            table.offsets[-1] = 0

    def trained(self, folder: Path, settings: Settings = FAST) -> Case:
        train(Run(self.method, self.roles, Samples(DATA), settings, folder))
        return self

    @property
    def drawn(self) -> tuple[Tensor, Tensor]:
        """(d, d) covariance and (d,) mean of what the student draws in one row."""
        module: Any = self.roles[STUDENT].module
        matrix, offset = module.at(FIRST)
        return float(SCHEDULE.sigma(FIRST)) ** 2 * matrix @ matrix.T, offset

    @property
    def error(self) -> float:
        """The largest error of covariance and mean."""
        covariance, mean = self.drawn
        wrong = (covariance - DATA.matrix(DATA.variances)).abs().max(), (mean - DATA.mean).abs().max()
        return float(max(wrong))


SETTINGS: dict[str, Any] = {"ratio": 3, "fake_rate": 0.08, "lowest": 0, "highest": 1}
METHODS = {
    "dmd": DistributionMatching(**SETTINGS),
    "sid": DistributionMatching(gradient="sid", **SETTINGS),
    "sid, another alpha": DistributionMatching(gradient="sid", alpha=1.2, **SETTINGS),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_student_draws_the_mean_and_the_covariance_of_the_data(name: str, tmp_path: Path) -> None:
    case = Case(METHODS[name])
    assert case.error > 0.4
    assert case.trained(tmp_path).error < NEAR


def the_other_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    real = dmd.direction
    monkeypatch.setattr(dmd, "direction", lambda x, ours, theirs: -real(x, ours, theirs))


def a_fake_score_of_data(monkeypatch: pytest.MonkeyPatch) -> None:
    real = DistributionMatching.of_fake
    monkeypatch.setattr(
        DistributionMatching,
        "of_fake",
        lambda self, roles, batch, x, draws: real(self, roles, batch, batch.data, draws),
    )


def a_target_that_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dmd, "towards", lambda x, gradient: 0.5 * (x - (x - gradient)).square().mean())


def a_fake_score_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    real = matching.output_error
    monkeypatch.setattr(dmd, "output_error", lambda *given: 0 * real(*given))


def one_scale_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The score of the student in the place of both."""
    monkeypatch.setattr(dmd, "direction", lambda x, ours, theirs: (theirs - theirs) / dmd.scale_of(x, ours))


@pytest.mark.parametrize(
    "fault", [the_other_sign, a_fake_score_of_data, a_target_that_moves, a_fake_score_that_stays, one_scale_for_all]
)
def test_a_fault_is_seen(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    case = Case(METHODS["dmd"])
    fault(monkeypatch)
    try:
        found = case.trained(tmp_path).error
    except Diverged:
        return
    assert not found < FAR


def test_the_student_of_score_identity_needs_the_right_sign(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = dmd.identity
    monkeypatch.setattr(dmd, "identity", lambda x, ours, theirs, alpha: real(x, theirs, ours, alpha))
    try:
        found = Case(METHODS["sid"]).trained(tmp_path).error
    except Diverged:
        return
    assert not found < FAR


def draws_of(count: int, step: int = 0) -> Draws:
    return Draws(0, step, range(count), range(count), count)


def losses_of(case: Case, batch: Batch, step: int = 0) -> dict[str, Tensor]:
    """By role, each back-propagated before the next is made."""
    found = {}
    for loss in case.method.losses(case.roles, batch, one_stage(step, 100), draws_of(len(batch), step)):
        loss.value.backward()
        found[loss.role] = loss.value.detach()
    return found


def test_with_the_exact_fake_score_the_gradient_is_the_analytic_one() -> None:
    """Of drawings N(b, C), with C = M M^T sigma^2, the score of noised ones is that of N(b, C + k^2)."""
    case = Case(METHODS["dmd"])
    covariance, mean = case.drawn
    fake: Any = case.roles[FAKE].module
    with torch.no_grad():
        for i, time in enumerate(TIMES):
            alpha, k = float(SCHEDULE.alpha(time)), float(SCHEDULE.ratio(time))
            best = covariance @ torch.linalg.inv(covariance + k**2 * torch.eye(DIMENSIONS))
            fake.matrices[i], fake.offsets[i] = best / alpha, mean - best @ mean
    batch = Samples(DATA).batch(range(LEVELS * SET))
    losses_of(case, batch)
    table: Any = case.roles[STUDENT].module
    start = float(SCHEDULE.sigma(FIRST)) * draws_of(len(batch)).normal("start", (DIMENSIONS,))
    matrix, offset = table.at(FIRST)
    x = start @ matrix.T + offset
    noise = draws_of(len(batch)).normal("noise of the student", (DIMENSIONS,))
    wanted = torch.zeros_like(x)
    for i, time in enumerate(TIMES):
        part = slice(i * SET, (i + 1) * SET)
        k = float(SCHEDULE.ratio(time))
        noisy = x[part] + k * noise[part]

        def score(variance: Tensor, centre: Tensor, noisy: Tensor = noisy, k: float = k) -> Tensor:
            return -(noisy - centre) @ torch.linalg.inv(variance + k**2 * torch.eye(DIMENSIONS))

        real = DATA.matrix(DATA.variances)
        difference = k**2 * (score(covariance, mean) - score(real, DATA.mean))
        scale = (x[part] - noisy - k**2 * score(real, DATA.mean)).abs().mean(1, keepdim=True)
        wanted[part] = difference / scale
    gradient = torch.einsum("bi,bj->ij", wanted, start) / x.numel()
    assert (table.matrices.grad[-1] - gradient).abs().max() < 1e-6
    assert gradient.abs().max() > 1e-2


def test_the_student_takes_one_step_to_several_of_the_fake_score(tmp_path: Path) -> None:
    method = DistributionMatching(ratio=4)
    settings = Settings(steps=10, batch=LEVELS * SET, rate=1e-3, clip=0, state_every=10)
    Case(method).trained(tmp_path, settings)
    tensors = fs.zoo.container.inspect(tmp_path / "states/step-00000010/state.safetensors").tensors()
    assert (int(tensors["student.updates"]), int(tensors[f"{FAKE}.updates"])) == (3, 10)


def test_a_students_loss_moves_nothing_but_the_student() -> None:
    case = Case(METHODS["sid"])
    with torch.no_grad():  # where both scores are one, nothing moves
        for weight in case.roles[FAKE].weights.values():
            weight.mul_(0.9)
    batch = Samples(DATA).batch(range(LEVELS * SET))
    first = next(case.method.losses(case.roles, batch, one_stage(0, 100), draws_of(len(batch))))
    first.value.backward()
    assert first.role == STUDENT
    assert all(weight.grad is None for weight in case.roles[FAKE].weights.values())
    table: Any = case.roles[STUDENT].module
    assert table.matrices.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("name", "f"),
    [
        ("reverse-kl", lambda u: -u.log()),
        ("forward-kl", lambda u: u * u.log()),
        ("jeffreys", lambda u: (u - 1) * u.log()),
        ("jensen-shannon", lambda u: u * u.log() - (u + 1) * ((u + 1) / 2).log()),
        ("hellinger", lambda u: 4 * (1 - u.sqrt())),
    ],
)
def test_a_divergence_weighs_by_its_second_derivative(name: str, f: Callable[[Tensor], Tensor]) -> None:
    for ratio in (0.2, 1.0, 3.0):
        at = torch.tensor([ratio, 1.0], dtype=torch.float64, requires_grad=True)
        first = torch.autograd.grad(f(at).sum(), at, create_graph=True)[0]
        second = torch.autograd.grad(first.sum(), at)[0]
        weight = dmd.DIVERGENCES[name](torch.tensor(ratio, dtype=torch.float64))
        assert float(weight) == pytest.approx(float(second[0] * ratio**2 / second[1]), rel=1e-9)


@pytest.mark.parametrize("sampler", ["ddim", "consistency"])
def test_a_student_of_several_rows_learns_from_the_states_of_its_own_drawing(sampler: str) -> None:
    method = DistributionMatching(rows=3, sampler=sampler)
    case = Case(method)
    student = case.roles[STUDENT]
    plan, batch = method.plan(student.network), Samples(DATA).batch(range(6))
    turns = [simulation.Turn(plan, row) for row in (0, 1, 2, 0, 1, 2)]
    x = simulation.reached(turns, student, batch, draws_of(6))
    states = [plan.entry[1] * draws_of(6).normal("start", (DIMENSIONS,))]
    for i in range(2):
        row, after = plan.rows[i], plan.rows[i + 1]
        data = student.network(states[-1], row.t)
        noise = draws_of(6).normal(f"row {i}", (DIMENSIONS,))
        if sampler == "ddim":
            noise = (states[-1] - row.alpha * data) / row.sigma
        states.append((after.alpha * data + after.sigma * noise).detach())
    for place, row in enumerate([0, 1, 2, 0, 1, 2]):
        torch.testing.assert_close(x[place], states[row][place])


def test_one_student_learns_several_plans_in_equal_shares() -> None:
    method = DistributionMatching(rows=3, times=(999.0, 700.0, 300.0, 989.0, 500.0, 979.0))
    network = Case(method).roles[STUDENT].network
    plans = method.plans(network)
    assert [[row.t for row in plan.rows] for plan in plans] == [[999, 700, 300], [989, 500], [979]]
    assert [len(method.plan(network, rows).rows) for rows in (None, 3, 2, 1)] == [3, 3, 2, 1]
    turns = simulation.turns_of(plans, draws_of(18))
    assert [len(turn.plan.rows) for turn in turns] == [3] * 6 + [2] * 6 + [1] * 6
    assert [turn.row for turn in turns] == [0, 0, 1, 1, 2, 2, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    with pytest.raises(InvalidInput, match="draws in 3 or 2 or 1 rows, which it learned, got 4"):
        method.plan(network, 4)
    with pytest.raises(InvalidInput, match="plans of 2, 2"):
        DistributionMatching(rows=2, times=(999.0, 500.0, 989.0, 400.0)).plan(network)
    with pytest.raises(InvalidInput, match="times are those of 1 rows"):
        DistributionMatching(times=(999.0, 500.0)).plan(network)


def test_states_of_several_plans_are_those_of_each_alone() -> None:
    method = DistributionMatching(rows=3, sampler="ddim", times=(999.0, 700.0, 300.0, 989.0, 500.0))
    case = Case(method)
    student, batch = case.roles[STUDENT], Samples(DATA).batch(range(4))
    long, short = method.plans(student.network)
    mixed = [simulation.Turn(long, 2), simulation.Turn(short, 1), simulation.Turn(long, 1), simulation.Turn(short, 0)]
    together = simulation.reached(mixed, student, batch, draws_of(4))
    for place, turn in enumerate(mixed):
        alone = simulation.reached([turn] * 4, student, batch, draws_of(4))
        torch.testing.assert_close(together[place], alone[place])


def test_scores_of_different_kinds_are_refused() -> None:
    case = Case(METHODS["dmd"])
    other = fs.Network(case.roles[FAKE].module, SCHEDULE, "v_prediction")
    case.roles[FAKE] = Role(other)
    with pytest.raises(InvalidInput, match="the teacher predicts sample and the fake score v_prediction"):
        losses_of(case, Samples(DATA).batch(range(4)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rows": 9}, "rows must be a whole number from 1 to 8"),
        ({"ratio": 0}, "ratio must be a whole number from 1"),
        ({"gradient": "kl"}, "gradient"),
        ({"sampler": "dpmpp-2m"}, "sampler"),
        ({"divergence": "forward-kl"}, "there is none: give adversary"),
        ({"critic_rate": 1e-4}, "there is none: give adversary"),
        ({"adversary": 0.1, "critic": 0}, "give critic above 0"),
        ({"adversary": 0.1, "gradient": "sid", "divergence": "jeffreys"}, "leave out divergence"),
        ({"lowest": 0.5, "highest": 0.5}, "shares of the range"),
        ({"fake_rate": -1.0}, "fake_rate must be a number above 0"),
        ({"fake_rate": "slow"}, "fake_rate must be a number above 0"),
        ({"lowest": "none"}, "shares of the range"),
        ({"times": ("first",)}, "each of times is a finite number"),
        ({"adversary": 1.0, "adversary_from": "late"}, "a share of the training"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        DistributionMatching(**settings)
