"""Each method on Gaussian data ends at the map that its discretised steps have, and with a fault in it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import fewstep as fs
from fewstep import schedules
from fewstep.distillation import Consistency, Progressive, Regression
from fewstep.distillation.methods import consistency, progressive, regression
from fewstep.distillation.terms import targets
from fewstep.training import STUDENT, Batch, Diverged, Draws, Run, Settings, loop, student_of, train
from fewstep.training.levels import time_of_ratio

from .gaussian import DIMENSIONS, Gaussian, Samples, exact, far, product, ratios

NEAR, FAR = 1e-3, 5e-3
"""A student is as near as that, and as far with a fault."""
SCHEDULE = schedules.scaled_linear()
DATA = Gaussian.usual()
FAST = Settings(steps=250, batch=36, rate=0.06, optimiser="adamw", width=0, clip=0, state_every=10**6, log_every=10**6)
SET = 18


class Case(NamedTuple):
    """A method, the times that its networks are asked at, and the factors of its optimum at one of these."""

    method: Any
    times: list[float]
    at: float
    factors: Tensor
    settings: Settings = FAST
    pairs: fs.Plan | None = None


def regression_case() -> Case:
    plan = fs.compile("ddim", schedule=SCHEDULE, steps=10, grid="trailing")
    times = [row.t for row in plan.rows]
    ks = [*ratios(SCHEDULE, times), 0.0]
    return Case(Regression(), times, times[0], product([DATA.ddim(*pair) for pair in pairwise(ks)]), pairs=plan)


def progressive_case(**options: Any) -> Case:
    method = Progressive(begin=8, end=1, **options)
    times = list(map(float, method.times(SCHEDULE, 8)))
    factors = product([DATA.ddim(*pair) for pair in pairwise(ratios(SCHEDULE, times))])
    return Case(method, times[:-1], times[0], factors, replace(FAST, steps=700))


def consistency_case(step: str | None, **options: Any) -> Case:
    method = Consistency(step=step, first=6, stages=1, least=0.05, deviation=0.0, **{"huber": 0.0, **options})
    ks = list(map(float, method.grid(SCHEDULE, 6)))
    one = DATA.heun if step == "heun" else DATA.ddim
    factors = product([one(*pair) for pair in pairwise(ks)])
    settings = replace(FAST, steps=340, batch=6 * SET)
    return Case(method, list(map(float, time_of_ratio(SCHEDULE, ks))), 0.0, factors, settings)


CASES: dict[str, Callable[[], Case]] = {
    "regression": regression_case,
    "progressive": progressive_case,
    "progressive, another weight": lambda: progressive_case(weight="snr+1"),
    "heun": lambda: consistency_case("heun"),
    "ddim": lambda: consistency_case("ddim"),
    "no teacher": lambda: consistency_case(None),
}


def error(case: Case, folder: Path) -> float:
    """How far a trained student is from the optimum, at the first of the times."""
    teacher = exact(DATA, SCHEDULE, case.times)
    roles = student_of(teacher)
    with torch.no_grad():  # not where the teacher is
        for parameter in roles[STUDENT].module.parameters():
            parameter.mul_(0.5)
    train(Run(case.method, roles, Samples(DATA, case.pairs, teacher), case.settings, folder))
    return far(roles[STUDENT].network, DATA, case.times[0], case.factors)


@pytest.fixture
def exact_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data and noise of a step have their means and covariances exactly at each level, so that expectations, which
    consistency without a teacher needs, take few samples.
    """
    generator = torch.Generator().manual_seed(3)
    raw = torch.randn(SET, 2 * DIMENSIONS, generator=generator, dtype=torch.float64)
    z = torch.linalg.qr(raw - raw.mean(0))[0] * SET**0.5

    def normal(draws: Draws, purpose: str, shape: Sequence[int]) -> Tensor:
        part = slice(0, DIMENSIONS) if purpose == "data" else slice(DIMENSIONS, None)
        return z[[place % SET for place in draws.places], part]

    def spread(draws: Draws, purpose: str) -> np.ndarray:
        return (np.array(draws.places) + 0.5) / draws.total

    monkeypatch.setattr(Draws, "normal", normal)
    monkeypatch.setattr(Draws, "spread", spread)


@pytest.mark.parametrize("name", [name for name in CASES if name != "no teacher"])
def test_a_student_ends_at_the_optimum(name: str, tmp_path: Path) -> None:
    assert error(CASES[name](), tmp_path) < NEAR


@pytest.mark.usefixtures("exact_moments")
@pytest.mark.parametrize("name", ["no teacher", "ddim"])
def test_consistency_with_and_without_a_teacher_has_one_optimum(name: str, tmp_path: Path) -> None:
    assert error(CASES[name](), tmp_path) < NEAR


@pytest.mark.usefixtures("exact_moments")
def test_pseudo_huber_does_not_move_the_optimum_of_a_teachers_step(tmp_path: Path) -> None:
    assert error(consistency_case("ddim", huber=0.3), tmp_path) < NEAR


def swapped_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Samples.batch

    def batch(self: Samples, numbers: Sequence[int]) -> Batch:
        found = real(self, numbers)
        assert found.noise is not None
        return Batch(found.noise, found.data)

    monkeypatch.setattr(Samples, "batch", batch)


def unscaled_start(monkeypatch: pytest.MonkeyPatch) -> None:
    real = regression.unrolled
    monkeypatch.setattr(regression, "unrolled", lambda plan, denoiser, start: real(plan, denoiser, start * 0.9))


def swapped_times(monkeypatch: pytest.MonkeyPatch) -> None:
    real = progressive.aim
    monkeypatch.setattr(progressive, "aim", lambda teacher, x, levels: real(teacher, x, (levels[0], *levels[:0:-1])))


def one_step_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progressive, "aim", lambda teacher, x, levels: teacher.estimate(x, levels[0])[0])


def the_first_teacher_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "succeed", lambda run, sitting: None)


def no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "ended", lambda x, level, ends, estimate: estimate)


def the_end_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "ended", lambda x, level, ends, estimate: x / level.alpha)


def a_step_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Consistency.levels

    def levels(self: Consistency, schedule: Any, turn: int, share: np.ndarray) -> Any:
        k, r = real(self, schedule, turn, share)
        return k, 0.9 * r

    monkeypatch.setattr(Consistency, "levels", levels)


def a_target_that_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    class Moving:
        """torch, where nothing stops a gradient."""

        no_grad = nullcontext

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    monkeypatch.setattr(consistency, "torch", Moving())


FAULTS = {
    "regression": [swapped_pairs, unscaled_start],
    "progressive": [swapped_times, one_step_for_two, the_first_teacher_for_ever],
    "ddim": [no_end, the_end_everywhere, a_step_too_far],
    "no teacher": [no_end, the_end_everywhere, a_step_too_far, a_target_that_moves],
}


@pytest.mark.parametrize(("name", "fault"), [(name, fault) for name, faults in FAULTS.items() for fault in faults])
def test_a_fault_is_seen(
    name: str,
    fault: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    if name == "no teacher":
        request.getfixturevalue("exact_moments")
    case = CASES[name]()
    fault(monkeypatch)
    try:
        found = error(case, tmp_path)
    except Diverged:
        return
    assert found > FAR
