"""The guidance scale as an input, and inside: what students of Gaussian data learn is known for every scale.

The guided denoiser of N(m_c, S) away from N(m_u, S) is linear in the scale s, that of N(m_c + (s - 1)(m_c - m_u), S).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import InvalidInput, schedules
from fewstep.distillation import GuidanceInput, LatentConsistency, Progressive
from fewstep.distillation.methods import lcm
from fewstep.distillation.terms import targets
from fewstep.models.families import call_sd
from fewstep.training import (
    STUDENT,
    TEACHER,
    Batch,
    Draws,
    Phase,
    Role,
    Run,
    Settings,
    further_roles,
    step,
    student_of,
    train,
)
from fewstep.training import roles as role_module
from fewstep.training.scale import takes_scale, with_scale
from models import tiny
from models.tiny_diffusers import enliven, sd_unet

from .gaussian import Gaussian, Samples, Table, exact, far, product, ratios
from .test_closed_form import FAR, FAST, NEAR

SCHEDULE = schedules.scaled_linear()
DATA = Gaussian.usual()
AWAY = DATA._replace(mean=torch.tensor([-0.2, 0.1, 0.3]).double())
SCALE = 3.0
INTERVAL = (1.0, 4.0)


def at_scale(scale: float) -> Gaussian:
    """The data whose denoiser is the guided one."""
    return DATA._replace(mean=DATA.mean + (scale - 1) * (DATA.mean - AWAY.mean))


class Branches(nn.Module):
    """Two tables that share their matrices: label 1 is the data, label 0 what is guided away from."""

    def __init__(self, times: Sequence[float]) -> None:
        super().__init__()
        tables = [exact(data, SCHEDULE, times).network for data in (DATA, AWAY)]
        self.own, self.away = tables  # type: ignore[assignment]

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return torch.where(label[:, None] > 0, self.own(x, t), self.away(x, t))


class Told(nn.Module):
    """A table whose offset is linear in the guidance scale."""

    def __init__(self, times: Sequence[float], slopes: Tensor | None = None) -> None:
        super().__init__()
        table = exact(DATA, SCHEDULE, times).network
        assert isinstance(table, Table)
        self.table = table
        self.slopes = nn.Parameter(torch.zeros_like(table.offsets) if slopes is None else slopes.clone())

    def forward(self, x: Tensor, t: Tensor, label: Tensor, guidance: Tensor) -> Tensor:
        at = (t[:, None].double() - self.table.times).abs().argmin(1)
        return self.table(x, t) + (guidance.double()[:, None] - 1) * self.slopes[at]

    def network_at(self, scale: float) -> fs.Network:
        """The denoiser of a scale, as a table."""
        with torch.no_grad():
            offsets = self.table.offsets + (scale - 1) * self.slopes
            return fs.Network(Table(self.table.times.tolist(), self.table.matrices, offsets), SCHEDULE, "sample")


class Pictures(Samples):
    """Data with a condition and what it is guided away from."""

    def batch(self, numbers: Sequence[int]) -> Batch:
        labels = [torch.full((len(numbers),), value) for value in (1, 0)]
        return Batch(super().batch(numbers).data, None, {"label": labels[0]}, {"label": labels[1]})


def spoiled(module: nn.Module) -> None:
    """A student does not begin where it is to end."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.5)


SOON = replace(FAST, steps=120)
"""Long enough to see a fault."""
LONG, TOLD = replace(FAST, steps=400, batch=72), replace(FAST, steps=500, batch=24)


def fixed_case(folder: Path, settings: Settings = LONG, **options: Any) -> float:
    """How far a latent consistency student with one scale inside is from its optimum at the first time."""
    way = LatentConsistency(**{"grid_steps": 6, "huber": 0.0, "rows": 1, **options})
    times = list(map(float, way.times(SCHEDULE)))
    roles = student_of(fs.Network(Branches(times[:-1]), SCHEDULE, "sample"), SCALE)
    spoiled(roles[STUDENT].module)
    roles |= further_roles(way, roles, Pictures(DATA).batch([0]))
    train(Run(way, roles, Pictures(DATA), settings, folder))
    visited = [*times[: -1 : way.skip], times[-1]]
    factors = product([DATA.ddim(*pair) for pair in pairwise(ratios(SCHEDULE, visited))])
    table = roles[STUDENT].module.own
    return far(fs.Network(table, SCHEDULE, "sample"), at_scale(SCALE), times[0], factors)  # type: ignore[arg-type]


def told_case(
    way: Any, run: tuple[Path, Settings], times: Sequence[float], factors: Tensor | None, teacher: Role
) -> float:
    """How far a student that is told the scale is from its optimum at the first time, at the worst of some scales.

    Without factors the optimum is the teacher's own guided estimate.
    """
    student = Told(times)
    spoiled(student)
    roles = {STUDENT: Role(fs.Network(student, SCHEDULE, "sample"), told=INTERVAL), TEACHER: teacher}
    roles |= further_roles(way, roles, Pictures(DATA).batch([0]))
    folder, settings = run
    train(Run(way, roles, Pictures(DATA), settings, folder))
    k = ratios(SCHEDULE, times[:1])[0]
    wanted = DATA.estimate(k) if factors is None else factors
    return max(far(student.network_at(scale), at_scale(scale), times[0], wanted) for scale in (*INTERVAL, 2.0))


def guided_teacher(times: Sequence[float]) -> Role:
    return Role(fs.Network(Branches(times), SCHEDULE, "sample"), trained=False)


TIMES = [900.0, 500.0, 100.0]


def guidance_case(folder: Path, settings: Settings = TOLD, **options: Any) -> float:
    return told_case(
        GuidanceInput(lowest=1, highest=4, **options), (folder, settings), TIMES, None, guided_teacher(TIMES)
    )


def test_the_slope_in_the_scale_is_learned_exactly(tmp_path: Path) -> None:
    assert guidance_case(tmp_path) < NEAR


def test_weights_do_not_move_it(tmp_path: Path) -> None:
    assert guidance_case(tmp_path, weight="snr+1") < NEAR


@pytest.mark.parametrize("skip", [1, 2])
def test_a_latent_consistency_student_has_guidance_inside(tmp_path: Path, skip: int) -> None:
    assert fixed_case(tmp_path, skip=skip) < NEAR


def test_targets_of_the_student_itself_do_not_move_it(tmp_path: Path) -> None:
    assert fixed_case(tmp_path, average=0) < NEAR


def test_pseudo_huber_does_not_move_it(tmp_path: Path) -> None:
    assert fixed_case(tmp_path, huber=0.3) < NEAR


def test_a_latent_consistency_student_is_told_its_scale(tmp_path: Path) -> None:
    way = LatentConsistency(grid_steps=3, huber=0.0, lowest=1, highest=4, rows=1)
    times = list(map(float, way.times(SCHEDULE)))
    factors = product([DATA.ddim(*pair) for pair in pairwise(ratios(SCHEDULE, times))])
    settings = replace(TOLD, steps=900)
    assert told_case(way, (tmp_path, settings), times[:-1], factors, guided_teacher(times[:-1])) < NEAR


def test_progressive_halves_the_steps_at_every_scale(tmp_path: Path) -> None:
    """Of a network that is told the scale, and is not guided on top."""
    way = Progressive(begin=4, end=1)
    times = list(map(float, way.times(SCHEDULE, 4)))
    guided = Branches(times[:-1])
    assert isinstance(guided.own, Table)
    assert isinstance(guided.away, Table)
    teacher = Told(times[:-1], (guided.own.offsets - guided.away.offsets).detach())
    role = Role(fs.Network(teacher, SCHEDULE, "sample"), trained=False, guidance=SCALE, told=INTERVAL)
    factors = product([DATA.ddim(*pair) for pair in pairwise(ratios(SCHEDULE, times))])
    assert told_case(way, (tmp_path, replace(TOLD, steps=1000)), times[:-1], factors, role) < NEAR


Patch = Callable[[pytest.MonkeyPatch], None]


def guided_by(change: Callable[..., Any]) -> Patch:
    """A fault in how the teacher is guided."""

    def fault(monkeypatch: pytest.MonkeyPatch) -> None:
        real = role_module.Guided
        monkeypatch.setattr(role_module, "Guided", lambda network, *rest: real(network, *change(*rest)))

    return fault


def shifted(scale: Any) -> Any:
    return [one + 1 for one in scale] if isinstance(scale, list) else scale + 1


W_FOR_S = guided_by(lambda condition, negative, scale: (condition, negative, shifted(scale)))
SWAPPED = guided_by(lambda condition, negative, scale: (negative, condition, scale))
UNGUIDED = guided_by(lambda condition, negative, scale: (condition, negative, 1.0))


def told_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The student is told a scale that is not the one that the teacher is guided at."""
    real = Role.answering

    def answering(self: Role, batch: Batch, guided: bool = False) -> Any:
        if self.told is not None and batch.scales is not None:
            batch = replace(batch, scales=batch.scales[::-1])
        return real(self, batch, guided)

    monkeypatch.setattr(Role, "answering", answering)


def guided_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The student is guided too."""
    real = Role.answering
    monkeypatch.setattr(
        Role, "answering", lambda self, batch, guided=False: real(replace(self, guidance=SCALE), batch, True)
    )


def no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "ended", lambda x, level, ends, estimate: estimate)


@pytest.mark.parametrize("fault", [W_FOR_S, SWAPPED, UNGUIDED, told_another])
def test_a_fault_in_the_scale_that_is_told_is_seen(fault: Patch, monkeypatch: Any, tmp_path: Path) -> None:
    fault(monkeypatch)
    assert guidance_case(tmp_path, SOON) > FAR


def stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The average that targets are asked of does not go after the student."""
    monkeypatch.setattr(step, "go_after", lambda role, student: None)


@pytest.mark.parametrize("fault", [W_FOR_S, SWAPPED, UNGUIDED, guided_twice, no_end, stays])
def test_a_fault_in_the_scale_inside_is_seen(fault: Patch, monkeypatch: Any, tmp_path: Path) -> None:
    fault(monkeypatch)
    assert fixed_case(tmp_path, SOON) > FAR


def moved(way: LatentConsistency, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """At which times a step that begins at the first one alone moves a student."""
    times = list(map(float, way.times(SCHEDULE)))[:-1]
    roles = student_of(fs.Network(Branches(times), SCHEDULE, "sample"), SCALE)
    spoiled(roles[STUDENT].module)
    monkeypatch.setattr(Draws, "spread", lambda draws, purpose: np.zeros(len(draws.samples)))
    batch = Pictures(DATA).batch(range(8))
    (loss,) = way.losses(roles, batch, Phase(0, 1, 0, 10, 0), Draws(0, 0, range(8), range(8), 8))
    loss.value.backward()
    table: Any = roles[STUDENT].module.own
    return [bool(gradient.any()) for gradient in table.offsets.grad]


def test_the_target_does_not_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimum does not tell, as the loss can be zero: the gradient does."""
    way = LatentConsistency(grid_steps=4, skip=2, average=0, rows=1)
    assert moved(way, monkeypatch) == [True, False, False, False]

    class Moving:
        """torch, where nothing stops a gradient."""

        no_grad = nullcontext

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    monkeypatch.setattr(lcm, "torch", Moving())
    assert moved(way, monkeypatch) == [True, False, True, False]


def alive(kind: str) -> tuple[fs.Network, dict[str, Tensor]]:
    """A network without the input, and a condition of a batch of two."""
    if kind == "own":
        return fs.Network(tiny.network(), schedules.linear()), {"label": torch.tensor([0, 2])}
    unet = sd_unet()
    enliven(unet, 1)
    draw = torch.Generator().manual_seed(0)
    unet.to(memory_format=torch.channels_last)
    return fs.Network(partial(call_sd, unet), SCHEDULE), {"text": torch.randn(2, 5, 32, generator=draw)}


@pytest.mark.parametrize("kind", ["own", "UNet2DConditionModel"])
def test_a_network_with_the_new_input_begins_as_the_one_without_whatever_it_is_told(kind: str) -> None:
    network, condition = alive(kind)
    with torch.random.fork_rng():
        before = torch.get_rng_state()
        other = with_scale(network)
        assert torch.equal(before, torch.get_rng_state())
    assert takes_scale(other)
    assert not takes_scale(network)
    shape = (2, 1, 4, 4) if kind == "own" else (2, 4, 8, 8)
    x, t = torch.randn(shape, generator=torch.Generator().manual_seed(2)), torch.tensor([10.0, 700.0])
    with torch.no_grad():
        expected = network.network(x, t, **condition)
        for scale in (1.0, 3.7):
            assert torch.equal(other.network(x, t, **condition, guidance=torch.full((2,), scale)), expected)
        assert other.module is not None
        new = {name for name, weight in other.module.named_parameters() if not weight.any()}
        (name,) = new - {name for name, weight in network.module.named_parameters() if not weight.any()}  # type: ignore[union-attr]
        other.module.get_parameter(name).fill_(0.1)
        told = other.network(x, t, **condition, guidance=torch.tensor([1.0, 3.0]))
    assert not torch.allclose(told[1], expected[1], atol=1e-4)


def test_a_network_of_another_kind_is_not_given_the_input() -> None:
    with pytest.raises(InvalidInput, match="an input of a UNet2DConditionModel or of fewstep's own network, and this"):
        with_scale(fs.Network(nn.Linear(2, 2), SCHEDULE))


def test_a_network_says_whether_it_is_told() -> None:
    plain, x, t = tiny.network(), torch.zeros(1, 1, 4, 4), torch.zeros(1)
    with pytest.raises(InvalidInput, match="this network is not told guidance"):
        plain(x, t, guidance=torch.ones(1))
    told: Any = with_scale(fs.Network(plain, schedules.linear())).module
    with pytest.raises(InvalidInput, match="is told its guidance scale: give guidance"):
        told(x, t)


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (lambda: GuidanceInput(lowest=3, highest=3), r"lowest to a higher one, at least 0, got \(3, 3\)"),
        (lambda: GuidanceInput(lowest=-1), r"got \(-1, 5.0\)"),
        (lambda: GuidanceInput(highest=float("inf")), "inf"),
        (lambda: GuidanceInput(weight="snr"), "unknown weight 'snr'"),
        (lambda: GuidanceInput(rows=0), "rows must be a whole number of at least 1"),
        (lambda: LatentConsistency(highest=4), r"got \(None, 4\)"),
        (lambda: LatentConsistency(rows=9), "rows must be a whole number from 1 to 8, got 9"),
        (lambda: LatentConsistency(grid_steps=2), "rows must be a whole number from 1 to 2, got 4"),
        (lambda: LatentConsistency(skip=0), "skip must be a whole number from 1 to 50"),
        (lambda: LatentConsistency(grid_steps=2000), "from 1 to 1000, got 2000"),
        (lambda: LatentConsistency(average=1), "average is a decay, from 0 and below 1, got 1"),
        (lambda: LatentConsistency(huber=-1.0), "huber must be a number of at least 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(way: Callable[[], Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        way()
