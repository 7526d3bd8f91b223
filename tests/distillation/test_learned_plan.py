"""A plan that is learned along with its student: on Gaussian data it ends at the best times and weights there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

import fewstep as fs
from fewstep import InvalidInput, schedules
from fewstep.distillation import Regression, Source, distill
from fewstep.distillation.terms.plan import PLAN, LearnedPlan, PlanRole, plan_of
from fewstep.training import Batch, Draws, Progress, Roles, Run, Settings, further_roles, student_of, train
from models import tiny

from .gaussian import DIMENSIONS, Gaussian

DATA = Gaussian.usual()
FLOW = schedules.flow()
FROZEN = Settings(steps=250, batch=64, rate=0.0, width=0.05, state_every=10**6, log_every=10**6)


class Exact(nn.Module):
    """The best denoiser of the data on a flow, alpha = 1 - t and sigma = t, at every time."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(DIMENSIONS, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = 1 - t[:, None], t[:, None]
        factors = alpha * DATA.variances / (alpha**2 * DATA.variances + sigma**2)
        along = (x - alpha * DATA.mean) @ DATA.directions
        return DATA.mean + (factors * along) @ DATA.directions.T + self.shift


class Ends:
    """Noise, and where the exact flow takes it."""

    count = None
    identity: dict[str, str] = {"data": "ends of the flow"}  # noqa: RUF012

    def batch(self, numbers: range | list[int]) -> Batch:
        noise = Draws(3, 0, numbers, range(len(numbers)), len(numbers)).normal("pair", (DIMENSIONS,)).double()
        return Batch(DATA.data(noise), noise)


class Learnt(NamedTuple):
    roles: Roles
    run: Run


def run_of(folder: Path, settings: Settings = FROZEN, **options: float) -> Learnt:
    method = Regression(rows=2, learn_plan=True, **{"plan_rate": 0.05, **options})  # type: ignore[arg-type]
    roles = student_of(fs.Network(Exact(), FLOW, "sample"))
    roles |= further_roles(method, roles, Ends().batch(range(64)))
    return Learnt(roles, Run(method, roles, Ends(), settings, folder))


def error(time: float, weight: float) -> float:
    """The mean square error of two rows, the second one at `time`, whose estimate has `weight` in the result, and the
    first one, which is the mean, the rest.
    """
    own = DATA.variances.numpy()
    factors = time * (1 - time) * own / ((1 - time) ** 2 * own + time**2)
    return float(np.mean((weight * factors - np.sqrt(own)) ** 2))


def test_two_rows_of_a_frozen_network_end_at_the_best_time_and_weight(tmp_path: Path) -> None:
    learnt = run_of(tmp_path)
    train(learnt.run)
    role = learnt.roles[PLAN]
    assert isinstance(role, PlanRole)
    table = role.learned.inner.table()
    best = min((minimize(lambda v: error(*v), [t, 1.5], method="Nelder-Mead") for t in (0.2, 0.5)), key=lambda o: o.fun)
    assert error(0.5, 1.0) > 10 * best.fun  # where it begins
    assert error(float(table.times[1]), float(table.weights[1, 1])) < 1.01 * best.fun + 1e-5
    assert float(table.times[1]) == pytest.approx(best.x[0], abs=0.02)
    assert plan_of(learnt.run.method, learnt.roles) == role.learned.plan()


def test_the_network_stays_as_it_was_where_its_rate_is_zero(tmp_path: Path) -> None:
    module = train(run_of(tmp_path, replace(FROZEN, steps=5)).run)
    assert not module.shift.any()


def test_a_plan_that_starts_as_it_is_makes_what_the_driver_makes() -> None:
    learnt = run_of(Path())
    batch = Ends().batch(range(4))
    role, network = learnt.roles[PLAN], learnt.roles["student"].network
    assert isinstance(role, PlanRole)
    start = learnt.run.method.plan(network)
    made = role.learned(network, batch.noise)
    assert torch.allclose(made, fs.sample(start, network, noise=batch.noise), atol=1e-12)
    assert torch.allclose(made, fs.sample(role.learned.plan(), network, noise=batch.noise), atol=1e-12)


def test_a_plan_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    settings = Settings(steps=12, batch=8, state_every=5, log_every=7)

    class Stop(BaseException):
        pass

    def stop(now: Progress) -> None:
        if now.step == 7 and now.losses:
            raise Stop

    train(run_of(tmp_path / "whole", settings).run)
    with pytest.raises(Stop):
        train(run_of(tmp_path / "killed", settings).run, stop)
    train(run_of(tmp_path / "killed", settings).run)
    states = [tmp_path / name / "states/step-00000012/state.safetensors" for name in ("whole", "killed")]
    assert states[0].read_bytes() == states[1].read_bytes()
    assert b"plan.average.0.05.gaps" in states[0].read_bytes()[:10_000]


def test_a_student_recommends_the_plan_that_was_learned(tmp_path: Path) -> None:
    teacher = tiny.write(tmp_path / "tiny.safetensors")
    method = Regression(rows=3, learn_plan=True)
    source = Source(count=32, steps=6, held_out=16, guidance=2.0)
    settings = Settings(steps=20, batch=16, state_every=20, log_every=20)
    found = distill(teacher, method, tmp_path / "run", settings=settings, source=source)
    plan = fs.load(found.path)([0, 1]).drawing.sampling.plan
    start = method.plan(fs.load(teacher).model.denoiser())
    assert isinstance(plan, fs.Plan)
    assert plan.recipe.sampler == "learned"
    assert len(plan.rows) == 3
    differences = np.abs(np.array(plan.recipe.times) - np.array(start.recipe.times))
    assert differences[0] == differences[-1] == 0
    assert 1e-3 < differences[1] < 300
    assert found.report.lines[0].nfe == 3


def test_what_cannot_be_learned_is_refused() -> None:
    for options, words in (
        ({"rows": 1, "learn_plan": True}, "a plan of one row goes from the first time to the last"),
        ({"learn_plan": 1}, "learn_plan is true or false, got 1"),
        ({"plan_rate": 0}, "plan_rate must be a finite number above zero, got 0"),
    ):
        with pytest.raises(InvalidInput, match=words):
            Regression(**options)  # type: ignore[arg-type]
    plan = fs.compile("euler-a", schedule=FLOW, steps=2)
    with pytest.raises(InvalidInput, match="the times and weights of euler-a cannot be learned"):
        LearnedPlan(plan, FLOW, torch.zeros(2, 1, 3))
