"""The derivative along a path of states: the same by both ways, tested at the start of a run, whatever the place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import schedules
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Level
from fewstep.distillation.terms import derivative
from fewstep.distillation.terms.derivative import (
    DERIVATIVE,
    Differentiated,
    Direction,
    difference,
    direction_of,
    forward,
)
from fewstep.training import STUDENT, Batch, Draws, Place, Role
from fewstep.training.levels import at_times, noised, time_of_ratio
from fewstep.training.place import prepared
from models import tiny

SPAN = 8.0
SCHEDULES = {
    "beta": schedules.scaled_linear(),
    "flow": schedules.flow(),
    "edm": schedules.edm(),
}


class Attentive(nn.Module):
    """Attention among three values, with the time as another one."""

    def __init__(self, rate: float = 0.01) -> None:
        super().__init__()
        self.rate = rate
        self.weight = nn.Parameter(torch.tensor([0.7, -0.4, 1.1]))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        q = (x + (self.rate * t[:, None]).sin())[..., None]
        return nn.functional.scaled_dot_product_attention(q, q * self.weight[0], q * self.weight[1])[..., 0]


class Changed(Attentive):
    """One whose time or state is changed on the way."""

    def __init__(self, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return super().forward(*self.change(x, t))


def states(schedule: Schedule, count: int = 8) -> tuple[Batch, Level]:
    data = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    ratios = torch.linspace(-2.5, 1.5, count).double().exp().numpy()
    return Batch(data), at_times(schedule, time_of_ratio(schedule, ratios), data)


def role(module: nn.Module, schedule: Schedule = SCHEDULES["beta"], way: str = "auto", **how: object) -> Differentiated:
    network = fs.Network(module, schedule, "v_prediction", **how)  # type: ignore[arg-type]
    batch, level = states(schedule)
    found = derivative.role_of("scm", way, Role(network), batch, level, SPAN)[DERIVATIVE]
    assert isinstance(found, Differentiated)
    return found


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_direction_is_the_tangent_of_the_states_and_their_level(name: str) -> None:
    """Against states and levels at k e^h and k e^-h."""
    schedule, h = SCHEDULES[name], 1e-4
    ratios = torch.tensor([0.05, 0.7, 3.0, 9.0]).double()
    data, noise = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).double()
    here, more, less = (
        at_times(schedule, time_of_ratio(schedule, (ratios * factor).numpy()), data)
        for factor in (1.0, math.exp(h), math.exp(-h))
    )
    found = direction_of(schedule, here, data, noise)
    slopes = [(getattr(more, part) - getattr(less, part)) / (2 * h) for part in ("t", "alpha", "sigma")]
    wanted = Direction((noised(data, noise, more) - noised(data, noise, less)) / (2 * h), *slopes)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow", "edm"])
def test_forward_mode_is_what_fine_differences_come_to(prediction: str) -> None:
    schedule = SCHEDULES["beta"]
    network = fs.Network(Attentive().double(), schedule, prediction)
    batch, _ = states(schedule)
    data = batch.data.double()
    level = at_times(schedule, [20.0, 100.0, 200.0, 300.0, 500.0, 600.0, 700.0, 800.0], data)
    noise = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)).double()
    x, way = noised(data, noise, level), direction_of(schedule, level, data, noise)

    def estimate(x: Tensor, level: Level) -> Tensor:
        return network.estimate(x, level)[0]

    exact = forward(estimate, x, level, way)
    errors = [float((difference(estimate, x, level, way, step) - exact).norm() / exact.norm()) for step in (0.02, 0.01)]
    assert errors[1] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)
    for part in ("x", "t", "alpha", "sigma"):
        if (prediction, part) in (("sample", "alpha"), ("sample", "sigma"), ("edm", "t")):
            continue
        other = forward(estimate, x, level, way._replace(**{part: torch.zeros_like(getattr(way, part))}))
        assert float((other - exact).norm() / exact.norm()) > 1e-3


@pytest.mark.parametrize("name", SCHEDULES)
def test_auto_is_forward_mode_where_both_agree(name: str) -> None:
    rate = {"beta": 0.01, "flow": 1.0, "edm": 0.1}[name]
    assert role(Attentive(rate), SCHEDULES[name]).step == 0
    assert role(Attentive(rate), SCHEDULES[name], "difference").step == pytest.approx(0.005 * SPAN)


def test_auto_is_the_difference_where_the_time_has_short_waves() -> None:
    """An estimate that turns once in six times of the schedule has slopes that a step of 9 of these averages out."""
    assert role(Attentive(1.0)).step == pytest.approx(0.005 * SPAN)
    assert role(Attentive(1.0), way="jvp").step == 0


def without_tangent(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return x, torch.autograd.forward_ad.unpack_dual(t).primal


def through_numpy(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    if torch.autograd.forward_ad.unpack_dual(x).tangent is not None:
        raise RuntimeError("no forward mode here")
    return x, t


def rounded(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return x, (t / 5).round() * 5


@pytest.mark.parametrize(
    ("change", "words"),
    [(without_tangent, r"it is \d+\.\d% from differences"), (through_numpy, "torch says: no forward mode here")],
)
def test_a_network_without_forward_mode_takes_the_difference_unless_forward_mode_is_asked_for(
    change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], words: str
) -> None:
    assert role(Changed(change)).step > 0
    with pytest.raises(fs.InvalidInput, match=rf'forward mode \("jvp"\), as {words}.*take "difference"'):
        role(Changed(change), way="jvp")


@pytest.mark.parametrize("way", ["auto", "difference"])
def test_a_network_that_rounds_its_time_is_refused(way: str) -> None:
    with pytest.raises(fs.InvalidInput, match=r"has no derivative.*rounds its time.*or use consistency"):
        role(Changed(rounded), way=way)


def test_networks_of_whole_times_or_few_digits_are_refused() -> None:
    with pytest.raises(fs.InvalidInput, match=r"scm takes the derivative by time, .* whole numbers .* use consistency"):
        role(Attentive(), integer_time=True)
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(fs.InvalidInput, match=r"float16 has too few digits: load the teacher in float32"):
            role(Attentive().to(dtype))


def test_a_failure_for_memory_is_no_lack_of_forward_mode() -> None:
    def full(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        role(Changed(full))


@pytest.mark.parametrize("way", ["jvp", "difference"])
def test_no_place_changes_the_derivative(way: str) -> None:
    """A lowered network differs by a hundredth, and forward mode through a compiled one fails."""
    schedule = SCHEDULES["beta"]
    module = tiny.network()
    condition = {"label": torch.arange(4) % 3}
    network = fs.Network(module, schedule, "v_prediction")
    data = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    level = at_times(schedule, [50.0, 300.0, 600.0, 900.0], data)
    batch, draws = Batch(data, condition=condition), Draws(0, 0, range(4), range(4), 4)
    roles = {STUDENT: Role(network)} | derivative.role_of("scm", way, Role(network), batch, level, SPAN)
    noise = draws.normal("noise", data.shape[1:])
    x, direction = noised(data, noise, level), direction_of(schedule, level, data, noise)

    def along(found: object) -> Tensor:
        assert isinstance(found, Differentiated)
        return found.along(batch, x, level, direction, draws)

    wanted = along(roles[DERIVATIVE])
    for place in (Place(precision="bfloat16"), Place(compile=True), Place(checkpointing=True)):
        with prepared(roles, place) as called:
            assert torch.equal(along(called[DERIVATIVE]), wanted)
    lowered = replace(roles[DERIVATIVE])
    with prepared(roles, Place(precision="bfloat16")) as called:
        answer = called[DERIVATIVE].answering(batch).estimate(x, level)[0]
        assert not torch.equal(answer, lowered.answering(batch).estimate(x, level)[0])
