"""MeanFlow: on Gaussian data each step of the student goes where the flow does, and a fault in it is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import schedules
from fewstep.denoise.base import Level
from fewstep.denoise.row import NO_ROW, RowFacts
from fewstep.distillation import Checks, MeanFlow, Measuring, Source, distill
from fewstep.distillation.methods import meanflow
from fewstep.distillation.terms import derivative
from fewstep.distillation.terms.derivative import Direction
from fewstep.training import STUDENT, TEACHER, Batch, Draws, Phase, Role, Roles, Run, Settings, further_roles, train
from models import tiny

from .smooth import FLOW, TIMES, Single, doubled, far, gradient, network, roles_of, whole
from .test_consistency import SCHEDULES, Asked

METHOD = MeanFlow(deviation=0.0, power=0.0, still=0.1, derivative="difference")
FAST = Settings(steps=500, batch=48, rate=0.006, width=0, clip=0, state_every=10**6, log_every=10**6)
SHARES = (0.0, 0.3, 0.7)
"""Of a time, where steps go."""
ANY = Phase(0, 1, 0, 100, 50)
Patch = Callable[[pytest.MonkeyPatch], None]


def with_derivative(method: MeanFlow, roles: Roles, batch: Batch) -> Roles:
    return {**roles, **further_roles(method, roles, batch)}


def test_each_step_of_a_student_goes_where_the_flow_does(tmp_path: Path) -> None:
    data, student = Single(), network(second_time=True)
    roles = with_derivative(METHOD, roles_of(student), data.batch(range(16)))
    assert far(student, SHARES) > 0.3
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


@pytest.mark.parametrize("kind", ["jvp", "difference"])
@pytest.mark.parametrize("velocity", ["teacher", "data"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_networks_are_asked_between_the_ends_of_their_schedule(name: str, velocity: str, kind: str) -> None:
    schedule = SCHEDULES[name]
    method = MeanFlow(velocity=velocity, derivative=kind, deviation=3.0)
    student, teacher = network_of(schedule, RowFacts(second_time=True)), network_of(schedule)
    batch = Batch(torch.randn(64, 3, generator=torch.Generator().manual_seed(0)))
    roles = with_derivative(method, {STUDENT: Role(student), TEACHER: Role(teacher, trained=False)}, batch)
    asked = [student.network.asked, teacher.network.asked]  # type: ignore[attr-defined]
    asked[0].times.clear()
    student.network.ends.clear()  # type: ignore[attr-defined]
    (loss,) = method.losses(roles, batch, ANY, Draws(1, 0, range(64), range(64), 64))
    loss.value.backward()
    assert torch.isfinite(loss.value)
    times, tolerance = asked[0].times + asked[1].times, 1e-4 * (schedule.t_max - schedule.t_min)
    assert schedule.t_min - tolerance <= min(times)
    assert max(times) <= schedule.t_max + tolerance
    ends = student.network.ends  # type: ignore[attr-defined]
    assert min(ends) >= schedule.t_clean
    assert max(ends) <= schedule.t_max + tolerance
    assert bool(asked[1].times) == (velocity == "teacher")


class Told(nn.Module):
    """Half its input, and the times that it was asked at and told."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.ends = Asked(), list[float]()

    def forward(self, x: Tensor, t: Tensor, r: Tensor | None = None) -> Tensor:
        self.ends += [] if r is None else r.tolist()
        return self.asked(x, t)


def network_of(schedule: schedules.Schedule, rows: RowFacts = NO_ROW) -> fs.Network:
    return fs.Network(Told(), schedule, "v_prediction", rows=rows)


def test_ways_go_down_and_the_share_that_is_still_does_not() -> None:
    method, draws = MeanFlow(still=0.3), Draws(1, 0, range(2000), range(2000), 2000)
    t, r = method.ways(FLOW, draws)
    assert np.mean(t == r) == pytest.approx(0.3, abs=0.03)
    assert (r <= t).all()
    assert (MeanFlow(least=0.3).ways(FLOW, draws)[1] == 0).any()
    assert np.median(t[t > r] - r[t > r]) > 0.1
    inside, _ = method.ways(FLOW, draws, margin=0.05)
    assert np.log(inside / (1 - inside)).max() <= np.log(80) - 0.05 + 1e-9


def test_the_weight_is_a_power_of_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """At power 1 errors count alike, however large, up to the constant."""
    batch, draws = Single().batch(range(8)), Draws(0, 0, range(8), range(8), 8)
    roles = with_derivative(METHOD, roles_of(network(second_time=True)), batch)
    plain, weighted = (
        next(replace(METHOD, velocity="data", power=power, constant=1e-9).losses(roles, batch, ANY, draws))
        for power in (0.0, 1.0)
    )
    assert float(weighted.value.detach()) == pytest.approx(1)
    assert float(plain.value.detach()) == pytest.approx(plain.figures["velocity"])
    assert weighted.figures == plain.figures


def test_rows_are_even_in_the_time_of_a_flow_and_end_clean() -> None:
    plan = METHOD.plan(network(second_time=True), 4)
    top, low = 80 / 81, 0.002 / 1.002
    assert [row.t for row in plan.rows] == pytest.approx(np.linspace(top, low, 5)[:-1].tolist())
    assert plan.ends[-1][0] == FLOW.t_clean
    assert len(METHOD.plan(network(second_time=True)).rows) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"velocity": "student"}, "unknown velocity 'student'"),
        ({"loss": "newest"}, "unknown loss 'newest'"),
        ({"loss": "original"}, "differs for velocities of data alone"),
        ({"derivative": "exact"}, "unknown derivative 'exact'"),
        ({"still": 1.0}, "still is a share of the samples, from 0 and below 1, got 1"),
        ({"mean": 0.5}, "a mean of log k goes with a deviation above 0"),
        ({"power": -1}, "power must be a finite number of at least 0, got -1"),
        ({"constant": 0}, "constant must be a finite number above zero, got 0"),
        ({"least": 100}, "least must be below 80"),
        ({"rows": 1.5}, "rows must be a whole number of at least 1, got 1.5"),
        ({"velocity": "data", "lowest": 1.0, "highest": 3.0}, "scales of guidance are a teacher's"),
        ({"lowest": 3.0, "highest": 1.0}, "from a lowest to a higher one"),
    ],
)
def test_other_settings_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(fs.InvalidInput, match=words):
        MeanFlow(**options)


def test_the_scale_of_guidance_may_be_an_input(tmp_path: Path) -> None:
    found = distill(
        tiny.write(tmp_path / "tiny.safetensors"),
        MeanFlow(lowest=1.0, highest=3.0, rows=2),
        tmp_path / "run",
        settings=Settings(steps=60, batch=8, rate=5e-3),
        source=Source(count=32, steps=6, held_out=16, guidance=2.0),
        measuring=Measuring(checks=Checks(every=0)),
    )
    weak, strong = (found.pipe([1], seed=3, guidance=scale) for scale in (1.0, 3.0))
    assert weak.nfe == strong.nfe == 2
    assert (weak.tensor - strong.tensor).abs().max() > 1e-3
    assert found.pipe([1], steps=4, seed=3).nfe == 4


def test_a_derivative_that_is_not_stopped_moves_where_the_original_loss_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    real = derivative.forward.__wrapped__  # type: ignore[attr-defined]  # which stops no gradient
    monkeypatch.setattr(derivative, "forward", real)
    monkeypatch.setattr(derivative, "tested", lambda *given: 0.0)
    assert slope(True, KINDS["data, original"], (0.75, 0.3), monkeypatch) > 1e-2
