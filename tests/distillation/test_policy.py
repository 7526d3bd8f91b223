"""Imitation by a policy on Gaussian data: each row goes where the teacher's own trajectory does, and faults are far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import InvalidInput, schedules
from fewstep.denoise.row import Way
from fewstep.distillation import Policy
from fewstep.distillation.methods import policy
from fewstep.training import STUDENT, TEACHER, Batch, Draws, Phase, Role, Run, Settings, train

from .gaussian import DIMENSIONS, Gaussian, Samples

NEAR, FAR = 0.02, 0.05
"""Of the size of the states: a row ends as near as that to the teacher's trajectory, and as far with a fault."""
SCHEDULE = schedules.scaled_linear()
DATA = Gaussian.usual()
FAST = Settings(steps=400, batch=24, rate=0.1, width=0, clip=0, state_every=10**6, log_every=10**6)
MIXED = replace(FAST, steps=220, rate=0.06, optimiser="adamw")
"""Where the teacher leads the way at first, which takes fewer steps."""
SCALE = 3.0


class Exact(nn.Module):
    """The best denoiser at any time of a schedule. Labels move the mean of the data, which guidance leads away from."""

    shift = torch.tensor([0.2, 0.3, -0.1]).double()

    def __init__(self, schedule: schedules.Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.unused = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        alpha, sigma = (torch.from_numpy(f(t.numpy()))[:, None] for f in (self.schedule.alpha, self.schedule.sigma))
        mean = DATA.mean if label is None else DATA.mean + label[:, None] * self.shift
        factors = DATA.variances * alpha / (DATA.variances * alpha**2 + sigma**2)
        return mean + (factors * ((x - alpha * mean) @ DATA.directions)) @ DATA.directions.T


class Guesses(nn.Module):
    """A student that is linear in the state, with a matrix for every row and guess; labels mean nothing to it."""

    def __init__(self, times: Sequence[float], count: int) -> None:
        super().__init__()
        self.times = torch.tensor(times, dtype=torch.float64)
        self.matrices = nn.Parameter(torch.zeros(len(times), count * DIMENSIONS, DIMENSIONS, dtype=torch.float64))
        self.offsets = nn.Parameter(torch.zeros(len(times), count * DIMENSIONS, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        at = (t[:, None].double() - self.times).abs().argmin(1)
        return torch.einsum("bij,bj->bi", self.matrices[at], x) + self.offsets[at]


class Pictures(Samples):
    """Data with a condition and what it is guided away from."""

    def batch(self, numbers: Sequence[int]) -> Batch:
        labels = [{"label": torch.full((len(numbers),), value).double()} for value in (1.0, 0.0)]
        found = super().batch(numbers).data + Exact.shift
        return Batch(found, None, labels[0], labels[1])


def roles_of(method: Policy, schedule: schedules.Schedule, guidance: float = 1.0) -> dict[str, Role]:
    teacher = fs.Network(Exact(schedule), schedule, "sample")
    times = [row.t for row in method.plan(teacher).rows]
    student = fs.Network(Guesses(times, method.guesses), schedule, "sample", rows=method.row_facts)
    return {STUDENT: Role(student), TEACHER: Role(teacher, trained=False, guidance=guidance)}


def furthest(plan: fs.Plan, student: fs.Network, teacher: fs.denoise.base.Denoiser | None = None) -> float:
    """How far the ends of rows are from the teacher's trajectories at the most, from states that tell an affine map
    whole: the exact flow's, or those of a `teacher` in many steps.
    """
    worst, schedule = 0.0, student.schedule
    assert schedule is not None
    for row, (end, alpha, sigma) in zip(plan.rows, plan.ends, strict=True):
        size = (row.alpha**2 + row.sigma**2) ** 0.5
        x = row.alpha * DATA.mean + size * torch.cat([torch.zeros(1, DIMENSIONS), torch.eye(DIMENSIONS)]).double()
        found = fs.sample(fs.compile("ddim", schedule=schedule, times=[row.t, end]), student, start=x)
        if teacher is None:
            before, after = (DATA.variances * a**2 + s**2 for a, s in ((row.alpha, row.sigma), (alpha, sigma)))
            wanted = alpha * DATA.mean + (x - row.alpha * DATA.mean) @ DATA.matrix((after / before).sqrt())
        else:
            ks = np.geomspace(row.sigma / row.alpha, max(sigma / alpha, 0.01), 400)
            times = [row.t, *schedule.time_of_lambda(-np.log(ks[1:-1])), end]
            wanted = fs.sample(fs.compile("dpmpp-2m", schedule=schedule, times=times), teacher, start=x)
        worst = max(worst, float((found - wanted).abs().max() / (alpha**2 + sigma**2) ** 0.5))
    return worst


def trained(method: Policy, folder: Path, settings: Settings = FAST, schedule: schedules.Schedule = SCHEDULE) -> float:
    """How far a student is in the end."""
    roles = roles_of(method, schedule)
    train(Run(method, roles, Samples(DATA), settings, folder))
    network = roles[STUDENT].network
    return furthest(method.plan(network), network)


@pytest.mark.parametrize(("mixing", "settings"), [(0.0, FAST), (0.5, MIXED)])
def test_every_row_ends_where_the_teachers_trajectory_does(mixing: float, settings: Settings, tmp_path: Path) -> None:
    assert trained(Policy(rows=2, guesses=8, mixing=mixing), tmp_path, settings) < NEAR


def test_so_it_does_on_another_schedule(tmp_path: Path) -> None:
    assert trained(Policy(rows=2, guesses=8), tmp_path, MIXED, schedules.flow()) < NEAR


def test_a_guided_teacher_is_followed_at_its_scale(tmp_path: Path) -> None:
    method = Policy(rows=2, guesses=8)
    roles = roles_of(method, SCHEDULE, SCALE)
    train(Run(method, roles, Pictures(DATA), MIXED, tmp_path))
    network, many = roles[STUDENT].network, DIMENSIONS + 1
    labels = [{"label": torch.full((many,), value).double()} for value in (1.0, 0.0)]
    guided = fs.Guided(roles[TEACHER].network, labels[0], labels[1], SCALE)
    assert furthest(method.plan(network), network, guided) < NEAR
    assert furthest(method.plan(network), network, roles[TEACHER].network.given(labels[0])) > FAR


def test_more_rows_are_nearer_in_the_end(tmp_path: Path) -> None:
    """The whole way, from noise: a straight line from guess to guess is nearer to what the data is on shorter ways."""
    errors, noise = [], torch.eye(DIMENSIONS).double()
    for rows in (1, 2, 4):
        method = Policy(rows=rows, guesses=4)
        roles = roles_of(method, SCHEDULE)
        train(Run(method, roles, Samples(DATA), replace(FAST, rate=0.03), tmp_path / str(rows)))
        plan = method.plan(roles[STUDENT].network)
        found, row = fs.sample(plan, roles[STUDENT].network, noise=noise), plan.rows[0]
        start = (noise * row.sigma / row.alpha - DATA.mean) @ DATA.matrix(DATA.flow(row.sigma / row.alpha))
        errors.append(float((found - DATA.mean - start).abs().max()))
    assert errors[0] > 1.3 * errors[1] > 1.3 * 1.3 * errors[2]
    assert errors[2] < NEAR / 2


def reversed_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Way.between
    monkeypatch.setattr(Way, "between", lambda way, first, last: real(way, first, last)[:, ::-1].copy())


def the_way_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guesses are taken to lie on the way to clean data, whatever the row's end."""

    def of(here: Any, there: Any, count: int) -> Way:
        begins = np.array(here)
        return Way(begins[:, 2] / (begins[:, 1] + begins[:, 2]), 0 * begins[:, 2], count)

    monkeypatch.setattr(policy, "Way", type("Other", (), {"of": staticmethod(of)}))


def another_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher is asked at less noise than the state has."""
    real = policy.at_flow_times
    monkeypatch.setattr(policy, "at_flow_times", lambda schedule, u, x: real(schedule, 0.8 * u, x))


def standing_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher is asked at the beginning of the row alone."""
    monkeypatch.setattr(policy, "stepped", lambda x, data, here, there: x)


def swapped_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    real = policy.stepped
    monkeypatch.setattr(policy, "stepped", lambda x, data, here, there: real(x, data, there, here))


FAULTS = [reversed_weights, the_way_to_the_end, another_level, standing_still, swapped_ends]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_far_from_it(
    fault: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    try:
        assert trained(Policy(rows=2, guesses=8), tmp_path, replace(FAST, steps=150)) > FAR
    except fs.training.Diverged:
        return


def slope(method: Policy) -> tuple[Tensor, Tensor]:
    """The gradient of the offsets of a student that knows nothing, and that of a plain regression, in closed form."""
    roles, places = roles_of(method, SCHEDULE), range(8)
    batch, draws = Samples(DATA).batch(places), Draws(0, 0, places, places, len(places))
    with torch.no_grad():
        for parameter in roles[STUDENT].module.parameters():
            parameter.add_(0.1)
    seen: list[tuple[Any, Any]] = []
    real = policy.answers

    def kept(*given: Any) -> list[Tensor]:
        found = real(*given)
        seen.append((given, found))
        return found

    policy.answers = kept
    try:
        (loss,) = method.losses(roles, batch, Phase(0, 1, 0, 10, 9), draws)
    finally:
        policy.answers = real
    loss.value.backward()
    ((_, _, _, guesses, along), targets) = seen[0]
    wanted = torch.zeros(method.guesses, DIMENSIONS, dtype=torch.float64)
    for u, target in zip(along.places, targets, strict=True):
        weights = along.way.at(u)
        difference = (policy.joined(guesses, weights) - target) / torch.from_numpy(u)[:, None] ** 2
        each = torch.from_numpy(weights)[:, :, None] * difference[:, None]
        wanted += 2 * each.sum(0).detach() / (len(places) * DIMENSIONS * method.visits)
    found = roles[STUDENT].module.get_parameter("offsets").grad
    assert found is not None
    return found.reshape(-1, DIMENSIONS), wanted


def test_no_gradient_goes_through_the_states_or_the_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimum does not tell, as the loss can be zero there: the gradient does."""
    method = Policy(rows=1, guesses=3)
    found, wanted = slope(method)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)

    class Moving:
        """torch, where nothing stops a gradient."""

        no_grad = nullcontext

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    monkeypatch.setattr(policy, "torch", Moving())
    found, wanted = slope(method)
    assert float((found - wanted).abs().max()) > 0.05 * float(wanted.abs().max())


def test_places_are_one_in_each_part_of_a_way_and_not_below_the_least_noise() -> None:
    method, places = Policy(rows=2, visits=4, least=0.1), range(6)
    draws = Draws(0, 0, places, places, len(places))
    way = Way([0.9] * 3 + [0.6] * 3, [0.6] * 3 + [0.0] * 3, 4)
    u = method.places(way, SCHEDULE, draws)
    assert u.shape == (4, 6)
    parts = (way.begins - u) / (way.begins - way.ends)
    assert (np.floor(parts[:, :3] * 4 + 1e-9) == np.arange(4)[:, None]).all()
    assert u.min() == 0.1
    assert (np.diff(u, axis=0) <= 0).all()


def test_the_teachers_part_of_the_ways_falls_to_nothing() -> None:
    places = range(200)
    draws = Draws(0, 0, places, places, len(places))
    shares = [np.mean(Policy(mixing=0.5).led(Phase(0, 1, 0, 100, step), draws)) for step in (0, 25, 50, 99)]
    assert shares[0] == 1.0
    assert shares[1] == pytest.approx(0.5, abs=0.05)
    assert shares[2] == shares[3] == 0.0
    assert np.mean(Policy(mixing=0).led(Phase(0, 1, 0, 100, 0), draws)) == 0.0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rows": 0}, "rows must be a whole number from 1 to 16, got 0"),
        ({"guesses": 65}, "guesses must be a whole number from 1 to 64, got 65"),
        ({"visits": 1.5}, "visits must be a whole number from 1 to 64, got 1.5"),
        ({"mixing": 1.5}, "mixing is a share, from 0 to 1, got 1.5"),
        ({"least": 0}, "least must be a finite number above zero, got 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Policy(**given)


def test_it_draws_in_its_own_rows_alone() -> None:
    network = fs.Network(Exact(SCHEDULE), SCHEDULE, "sample")
    assert [row.t for row in Policy(rows=4).plan(network, 4).rows] == [999.0, 749.0, 499.0, 249.0]
    with pytest.raises(InvalidInput, match="policy knows the times of its own 4 rows alone: train one for 2"):
        Policy(rows=4).plan(network, 2)
    with pytest.raises(InvalidInput, match="unknown grid"):
        Policy(grid="even").plan(network)
