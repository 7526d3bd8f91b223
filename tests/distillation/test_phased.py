"""Regression on phases: every row of every plan goes where the teacher's trajectory is at the end of its phase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fewstep as fs
from fewstep import schedules
from fewstep.distillation import Phased, Settings, Source, distill
from fewstep.distillation.methods import phased
from fewstep.distillation.pictures.recording import Recorded
from fewstep.training import STUDENT, Batch, Draws, Phase, Run, student_of, train
from models import tiny

from .gaussian import DIMENSIONS, Gaussian, Samples, exact

SCHEDULE = schedules.scaled_linear()
DATA = Gaussian.usual()
METHOD = Phased(plans=(3, 2, 1), levels=5)
TEACHER_PLAN = fs.compile("ddim", schedule=SCHEDULE, steps=METHOD.levels, grid="trailing")
TIMES = tuple(row.t for row in TEACHER_PLAN.rows)
FAST = Settings(steps=320, batch=48, rate=0.06, optimiser="adamw", width=0, clip=0, state_every=10**6, log_every=10**6)


@pytest.fixture(autouse=True)
def _ways_anew() -> Iterator[None]:
    phased.ways_of.cache_clear()
    yield
    phased.ways_of.cache_clear()


def ways() -> list[phased.Way]:
    return [way for plan in phased.ways_of(SCHEDULE, TIMES, METHOD.plans) for way in plan]


def trained(folder: Path, settings: Settings = FAST) -> fs.Network:
    roles = student_of(exact(DATA, SCHEDULE, [way.begins for way in ways()]))
    with torch.no_grad():  # not where the teacher is
        for parameter in roles[STUDENT].module.parameters():
            parameter.mul_(0.5)
    train(Run(METHOD, roles, Samples(DATA, TEACHER_PLAN, exact(DATA, SCHEDULE, TIMES)), settings, folder))
    return roles[STUDENT].network


def drawn(plan: fs.Plan, network: fs.Network) -> list[torch.Tensor]:
    """The states at the rows after the first, and the end, from noise that tells an affine map whole."""
    noise = torch.cat([torch.eye(DIMENSIONS), torch.zeros(1, DIMENSIONS)]).double()
    way = Recorded(network)
    end = fs.sample(plan, way, start=noise * plan.entry[1])
    return [*way.states[1:], end]


def furthest(student: fs.Network) -> float:
    """How far the states of the student's plans are from the teacher's at the most."""
    teacher = [torch.zeros(()), *drawn(TEACHER_PLAN, exact(DATA, SCHEDULE, TIMES))]
    found = []
    for rows, plan in zip(METHOD.plans, phased.ways_of(SCHEDULE, TIMES, METHOD.plans), strict=True):
        states = drawn(METHOD.plan(student, rows), student)
        found += [(state - teacher[way.last]).abs().max() for state, way in zip(states, plan, strict=True)]
    return float(max(found))


def test_every_row_of_every_plan_goes_where_the_teacher_does(tmp_path: Path) -> None:
    assert furthest(trained(tmp_path)) < 1e-3


@pytest.mark.parametrize("fault", ["next level", "other samples", "one beginning", "no ratio"])
def test_a_fault_is_far_from_it(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Samples.batch

    def batch(self: Samples, numbers: list[int]) -> Batch:
        found = inner(self, numbers)
        assert found.along is not None
        return replace(found, along=found.along.roll(1, 1 if fault == "next level" else 0))

    if fault == "one beginning":
        monkeypatch.setattr(phased, "LATER", 0.0)
    elif fault == "no ratio":
        monkeypatch.setattr(phased, "target_of", lambda x, end, here, there: end / there.alpha)
    else:
        monkeypatch.setattr(Samples, "batch", batch)
    assert furthest(trained(tmp_path, replace(FAST, steps=200))) > 5e-3


def test_plans_cut_at_different_states_and_begin_one_after_the_other() -> None:
    times = tuple(999.0 - 100 * i for i in range(10))
    four, two, one = phased.ways_of(SCHEDULE, times, (4, 2, 1))
    assert [way.begins for way in four] == [999.0, 799.0, 599.0, 299.0]
    assert [way.ends for way in four] == [799.0, 599.0, 299.0, SCHEDULE.t_clean]
    assert [(way.begins, way.first, way.last) for way in two] == [(989.0, 0, 5), (499.0, 5, 10)]
    assert one == (phased.Way(979.0, SCHEDULE.t_clean, 0, 10),)
    assert phased.ways_of(SCHEDULE, times, (1, 4, 2)) == (one, four, two)


def test_plans_have_equal_shares_of_the_samples_and_so_have_their_rows() -> None:
    chosen = Counter(Phased().chosen(Draws(0, 0, range(1200), range(1200), 1200)))
    assert chosen == {
        **{(0, row): 100 for row in range(4)},
        **{(1, row): 200 for row in range(2)},
        (2, 0): 400,
    }


def test_a_student_knows_the_plans_that_it_learned_and_no_other(tmp_path: Path) -> None:
    found = distill(
        tiny.write(tmp_path / "tiny.safetensors"),
        Phased(plans=(2, 1), levels=4),
        tmp_path / "run",
        settings=Settings(steps=4, batch=8, state_every=2),
        source=Source(steps=6, count=16, held_out=16, guidance=2.0),
    )
    assert found.pipe(seed=1).nfe == 2.0
    assert found.pipe(seed=1, steps=1).nfe == 1.0
    assert found.pipe(seed=1, preset="realtime").nfe == 1.0
    with pytest.raises(fs.InvalidInput, match="a plan of its own of 1 or 2 steps, which decides steps"):
        found.pipe(steps=4)
    with pytest.raises(fs.InvalidInput, match="draws in 2 or 1 rows, which it learned, got 3"):
        Phased(plans=(2, 1), levels=4).plan(exact(DATA, SCHEDULE, TIMES), 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"levels": 0}, "levels must be a whole number from 1 to 100, got 0"),
        ({"plans": []}, r"different numbers of rows from 1, such as \(4, 2, 1\), got \(\)"),
        ({"plans": [2, 2]}, r"got \(2, 2\)"),
        ({"plans": [True]}, r"got \(True,\)"),
        ({"plans": 0}, r"got \(0,\)"),
        ({"times": [9.0, 5.0]}, "2 times are given for 10 levels: give as many"),
        ({"plans": [8, 4, 2, 1]}, "8 and 4 and 2 and 1 rows cut the teacher's trajectory at 11 states, and 10 levels"),
    ],
)
def test_other_settings_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(fs.InvalidInput, match=words):
        Phased(**options)  # type: ignore[arg-type]


def test_lists_are_taken() -> None:
    given = Phased(plans=[2, 1], times=[9.0, 5.0], levels=2)  # type: ignore[arg-type]
    assert given == Phased(plans=(2, 1), times=(9.0, 5.0), levels=2)
    assert Phased(plans=2).plans == (2,)  # type: ignore[arg-type]


def test_a_teacher_of_fewer_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(fs.InvalidInput, match="phased learns 10 levels, and the teacher's plan has 6"):
        distill(
            tiny.write(tmp_path / "tiny.safetensors"),
            Phased(),
            tmp_path / "run",
            source=Source(steps=6, count=16, held_out=16),
        )
    assert not (tmp_path / "run").exists()


def test_pictures_without_their_trajectory_are_refused() -> None:
    roles = student_of(exact(DATA, SCHEDULE, TIMES))
    with pytest.raises(fs.InvalidInput, match="trajectories"):
        next(METHOD.losses(roles, Batch(torch.zeros(2, 3)), Phase(0, 1, 0, 10, 0), Draws(0, 0, [0, 1], [0, 1], 2)))
