"""MeanFlow: on Gaussian data each step of the student goes where the flow does, and a fault in it is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fewstep as fs
from fewstep import schedules
from fewstep.denoise.base import Level
from fewstep.denoise.row import RowFacts
from fewstep.distillation import MeanFlow, derivative, meanflow
from fewstep.distillation.derivative import Direction
from fewstep.training import STUDENT, TEACHER, Batch, Draws, Phase, Role, Roles, Run, Settings, further_roles, train

from .smooth import TIMES, Single, doubled, far, gradient, network, roles_of, whole
from .test_consistency import SCHEDULES, Asked

METHOD = MeanFlow(deviation=0.0, power=0.0, still=0.25, derivative="difference")
FAST = Settings(steps=600, batch=64, rate=0.006, width=0, clip=0, state_every=10**6, log_every=10**6)
SHARES = (0.0, 0.3, 0.7)
"""Of a time, where steps go."""
ANY = Phase(0, 1, 0, 100, 50)
Patch = Callable[[pytest.MonkeyPatch], None]


def with_derivative(method: MeanFlow, roles: Roles, batch: Batch) -> Roles:
    return {**roles, **further_roles(method, roles[STUDENT], batch)}


def test_each_step_of_a_student_goes_where_the_flow_does(tmp_path: Path) -> None:
    data, student = Single(), network(second_time=True)
    roles = with_derivative(METHOD, roles_of(student), data.batch(range(16)))
    assert far(student, SHARES) > 0.4
    train(Run(METHOD, roles, data, FAST, tmp_path))
    assert far(student, SHARES) < 0.02


def slope(average: bool, method: MeanFlow, way: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> float:
    """The gradient of a student for steps from a time to another, over samples whose moments are exact.

    Of `average` the student is the exact flow, else the teacher.
    """
    batch, noise = whole()
    monkeypatch.setattr(Draws, "normal", lambda self, purpose, shape: noise)
    method = replace(method, derivative="jvp")
    roles = with_derivative(method, roles_of(network(average, True)), replace(batch, data=batch.data.float()))
    monkeypatch.setattr(MeanFlow, "ways", lambda self, *given: tuple(np.full(len(batch), end) for end in way))
    return gradient(method, doubled(roles), batch, ANY)


KINDS = {
    "teacher": METHOD,
    "data, improved": replace(METHOD, velocity="data"),
    "data, original": replace(METHOD, velocity="data", loss="original"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", TIMES)
def test_the_flow_is_where_it_rests(kind: str, t: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for share in SHARES:
        assert slope(True, KINDS[kind], (t, share * t), monkeypatch) < 1e-6
        assert slope(False, KINDS[kind], (t, share * t), monkeypatch) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_where_a_way_has_no_length_it_learns_the_velocity(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert slope(False, KINDS[kind], (0.75, 0.75), monkeypatch) < 1e-6


def directed(change: Callable[[Direction], Direction]) -> Patch:
    def fault(monkeypatch: pytest.MonkeyPatch) -> None:
        real = derivative.forward

        def forward(estimate: derivative.Estimate, x: Tensor, level: Level, way: Direction) -> Tensor:
            return real(estimate, x, level, change(way))

        monkeypatch.setattr(derivative, "forward", forward)
        monkeypatch.setattr(derivative, "tested", lambda *given: 0.0)

    return fault


def swapped_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Level, "towards", lambda self, there: self._replace(host=there.host, ends=self.host))


def the_other_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    real = meanflow.column
    monkeypatch.setattr(meanflow, "column", lambda values, x: real(values if values.max() > 0.7 else -values, x))


FAULTS = {
    "no tangent of x": directed(lambda way: way._replace(x=torch.zeros_like(way.x))),
    "no tangent of t": directed(lambda way: way._replace(t=torch.zeros_like(way.t))),
    "no tangent of sigma": directed(lambda way: way._replace(sigma=torch.zeros_like(way.sigma))),
    "backwards": directed(lambda way: way._replace(x=-way.x)),
    "swapped ends": swapped_ends,
    "the other sign": the_other_sign,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_rests_elsewhere_with_a_fault(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[fault](monkeypatch)
    assert slope(True, METHOD, (0.75, 0.3), monkeypatch) > 1e-2


def test_a_derivative_that_is_not_stopped_moves_where_the_original_loss_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    real = derivative.forward.__wrapped__  # type: ignore[attr-defined]  # which stops no gradient
    monkeypatch.setattr(derivative, "forward", real)
    monkeypatch.setattr(derivative, "tested", lambda *given: 0.0)
    assert slope(True, KINDS["data, original"], (0.75, 0.3), monkeypatch) > 1e-2
