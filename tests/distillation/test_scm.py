"""Continuous-time consistency: on Gaussian data the student leads to the end of the flow, and a fault in it is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import fewstep as fs
from fewstep import schedules
from fewstep.denoise.base import Level
from fewstep.distillation import ContinuousConsistency
from fewstep.distillation.methods import scm
from fewstep.distillation.terms import derivative
from fewstep.distillation.terms.derivative import Direction
from fewstep.training import STUDENT, TEACHER, Batch, Draws, Phase, Role, Roles, Run, Settings, further_roles, train
from fewstep.training.levels import at_times, time_of_ratio

from .smooth import FLOW, TIMES, Single, doubled, far, gradient, network, roles_of, whole
from .test_consistency import SCHEDULES, Asked, Dropped

METHOD = ContinuousConsistency(deviation=2.0, sigma_data=0.7, warmup=0.1)
FAST = Settings(steps=250, batch=48, rate=0.005, width=0, clip=0, state_every=10**6, log_every=10**6)
LATE = Phase(0, 1, 0, 100, 99)
"""After the warm-up."""
Patch = Callable[[pytest.MonkeyPatch], None]


def with_derivative(method: ContinuousConsistency, roles: Roles, batch: Batch) -> Roles:
    return {**roles, **further_roles(method, roles, batch)}


def trained(folder: Path, steps: int) -> float:
    """How far a student that began as its teacher is from the end of the flow."""
    data = Single()
    roles = with_derivative(METHOD, roles_of(network()), data.batch(range(16)))
    train(Run(METHOD, roles, data, replace(FAST, steps=steps), folder))
    return far(roles[STUDENT].network)


def test_a_student_leads_to_the_end_of_the_flow(tmp_path: Path) -> None:
    assert far(network()) > 0.4
    assert trained(tmp_path, FAST.steps) < 0.02


def wrong_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ContinuousConsistency.tangent
    monkeypatch.setattr(ContinuousConsistency, "tangent", lambda self, *given: -real(self, *given))


def no_estimate_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ContinuousConsistency.loss

    class Moving(Tensor):
        """An estimate that cannot be stopped."""

        def detach(self) -> Tensor:
            return self

    def loss(self: ContinuousConsistency, estimate: Tensor, tangent: Tensor, level: Level) -> Tensor:
        return real(self, estimate.as_subclass(Moving), tangent, level).as_subclass(Tensor)

    monkeypatch.setattr(ContinuousConsistency, "loss", loss)


@pytest.mark.parametrize("fault", [None, wrong_sign, no_estimate_is_stopped])
def test_it_comes_nearer_with_the_right_sign_and_a_stopped_estimate_alone(
    fault: Patch | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if fault is not None:
        fault(monkeypatch)
    before, after = far(network()), trained(tmp_path, 20)
    assert (after < 0.5 * before) == (fault is None)


def slope(average: bool, velocity: str, time: float, monkeypatch: pytest.MonkeyPatch) -> float:
    """The gradient of a student at some time, over samples whose moments are exact, without normalising the tangent.

    Of `average` the student is the exact end of the flow, else the teacher.
    """
    batch, noise = whole()
    monkeypatch.setattr(Draws, "normal", lambda self, purpose, shape: noise)
    method = replace(METHOD, velocity=velocity, constant=1e6, derivative="jvp")
    roles = doubled(with_derivative(method, roles_of(network(average)), replace(batch, data=batch.data.float())))
    monkeypatch.setattr(ContinuousConsistency, "times", lambda self, *given: np.full(len(batch), time))
    return 1e6 * gradient(method, roles, batch, LATE)


@pytest.mark.parametrize("velocity", ["teacher", "data"])
@pytest.mark.parametrize("time", TIMES)
def test_the_end_of_the_flow_is_where_it_rests(velocity: str, time: float, monkeypatch: pytest.MonkeyPatch) -> None:
    assert slope(True, velocity, time, monkeypatch) < 1e-6
    assert slope(False, velocity, time, monkeypatch) > 1e-2


def without(name: str) -> Patch:
    def fault(monkeypatch: pytest.MonkeyPatch) -> None:
        real = derivative.forward

        def forward(estimate: derivative.Estimate, x: Tensor, level: Level, way: Direction) -> Tensor:
            return real(estimate, x, level, way._replace(**{name: torch.zeros_like(getattr(way, name))}))

        monkeypatch.setattr(derivative, "forward", forward)
        monkeypatch.setattr(derivative, "tested", lambda *given: 0.0)

    return fault


def backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    real = scm.direction_of

    def direction_of(schedule: schedules.Schedule, level: Level, data: Tensor, noise: Tensor) -> Direction:
        return real(schedule, level, noise, data)

    monkeypatch.setattr(scm, "direction_of", direction_of)


@pytest.mark.parametrize("fault", [without("x"), without("t"), without("sigma"), backwards])
def test_it_rests_elsewhere_with_a_fault_in_the_derivative(fault: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    assert slope(True, "teacher", 0.75, monkeypatch) > 1e-2


def test_before_the_warm_up_it_is_led_to_the_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    def still(student: bool, step: int) -> float:
        roles = with_derivative(METHOD, roles_of(network(average=student)), batch)
        return gradient(METHOD, roles, batch, Phase(0, 1, 0, 100, step))

    batch = Single().batch(range(32))
    assert still(False, 0) < 1e-4 < 1e-1 < still(True, 0)
    assert still(True, 10) < 1e-2 < 1e-1 < still(False, 10)
    assert still(False, 0) < still(False, 5) < still(False, 10)


def test_the_tangent_of_each_sample_has_the_size_that_the_constant_leaves_it() -> None:
    method = ContinuousConsistency(constant=0.1, sigma_data=1.0)
    tangent = torch.tensor([[[3.0, -1.0]], [[1e-3, 1e-3]], [[0.0, 0.0]]])
    estimate = torch.zeros_like(tangent).requires_grad_()
    level = at_times(FLOW, [0.2, 0.5, 0.9], tangent)
    method.loss(estimate, tangent, level).backward()
    sine = level.sigma / (level.sigma**2 + level.alpha**2).sqrt()
    size = tangent.square().mean((1, 2), keepdim=True).sqrt()
    assert estimate.grad is not None
    assert torch.allclose(estimate.grad, 2 * tangent / (size + 0.1) / sine / 6)


@pytest.mark.parametrize("way", ["jvp", "difference"])
@pytest.mark.parametrize("velocity", ["teacher", "data"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_networks_are_asked_between_the_ends_of_their_schedule(name: str, velocity: str, way: str) -> None:
    schedule = SCHEDULES[name]
    method = ContinuousConsistency(velocity=velocity, derivative=way, deviation=4.0)
    student, teacher = (fs.Network(Asked(), schedule, "v_prediction") for _ in range(2))
    batch = Batch(torch.randn(64, 3, generator=torch.Generator().manual_seed(0)))
    roles = with_derivative(method, {STUDENT: Role(student), TEACHER: Role(teacher, trained=False)}, batch)
    student.network.times.clear()  # type: ignore[attr-defined]
    (loss,) = method.losses(roles, batch, LATE, Draws(1, 0, range(64), range(64), 64))
    loss.value.backward()
    assert torch.isfinite(loss.value)
    times = student.network.times + teacher.network.times  # type: ignore[attr-defined]
    assert min(times) >= schedule.t_min - 1e-6 * (schedule.t_max - schedule.t_min)
    assert max(times) <= schedule.t_max + 1e-4 * (schedule.t_max - schedule.t_min)
    assert bool(teacher.network.times) == (velocity == "teacher")  # type: ignore[attr-defined]


def test_all_evaluations_of_a_step_have_one_dropout_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network answers with the same whatever the state, so with one mask its derivative is nothing."""
    method = ContinuousConsistency(velocity="data", derivative="difference", warmup=0.0)
    student = Role(fs.Network(Dropped(), FLOW, "sample"))
    batch = Batch(torch.zeros(16, 8))
    roles = with_derivative(method, {STUDENT: student}, batch)

    def tangent() -> float:
        (loss,) = method.losses(roles, batch, LATE, Draws(1, 5, range(16), range(16), 16))
        return loss.figures["tangent"]

    assert tangent() == 0
    monkeypatch.setattr(derivative, "masked", lambda denoiser, x, level, draws: denoiser.estimate(x, level)[0])
    assert tangent() > 1


def test_a_run_without_the_role_of_the_derivative_is_refused() -> None:
    batch = Single().batch(range(4))
    with pytest.raises(fs.InvalidInput, match=r"scm takes a derivative.*further_roles\(method, roles, batch\)"):
        next(METHOD.losses(roles_of(network()), batch, LATE, Draws(0, 0, range(4), range(4), 4)))


def test_rows_go_down_evenly_to_where_levels_are_drawn_the_most() -> None:
    plan = METHOD.plan(network(), 3)
    inner = time_of_ratio(FLOW, np.exp(np.linspace(np.log(80.0), METHOD.mean, 4)[:-1]))
    assert [row.t for row in plan.rows] == pytest.approx(inner.tolist())
    assert plan.recipe.sampler == "consistency"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"velocity": "student"}, "unknown velocity 'student'"),
        ({"derivative": "exact"}, "unknown derivative 'exact'"),
        ({"rows": 0}, "rows must be a whole number of at least 1, got 0"),
        ({"warmup": 1.5}, "warmup is a share of the steps, from 0 to 1, got 1.5"),
        ({"least": 80}, "least must be below 80"),
        ({"constant": 0.0}, "constant must be a finite number above zero, got 0"),
        ({"deviation": 0}, "deviation must be a finite number above zero, got 0"),
        ({"sigma_data": -1}, "sigma_data must be a finite number above zero, got -1"),
        ({"mean": "low"}, "mean is a finite number"),
        ({"matching": -0.01}, "matching must be a number of at least 0, got -0.01"),
        ({"ratio": 5}, "there is none: give matching, its share, such as 0.01"),
        ({"fake_rate": 1e-4}, "there is none: give matching, its share, such as 0.01"),
        ({"matching": 0.01, "ratio": 0}, "ratio must be a whole number from 1 to 1000, got 0"),
        ({"matching": 0.01, "fake_rate": 0}, "fake_rate must be a number above 0, got 0"),
    ],
)
def test_other_settings_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(fs.InvalidInput, match=words):
        ContinuousConsistency(**options)  # type: ignore[arg-type]
