"""Regression on the endpoint: from every level of the teacher's trajectory, and in any number of rows, to its end."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep import schedules
from fewstep.distillation import Endpoint, Settings, Source, distill
from fewstep.distillation.methods import endpoint
from fewstep.distillation.pictures import pairs
from fewstep.training import STUDENT, Batch, Draws, Phase, Run, student_of, train
from models import tiny

from .gaussian import DIMENSIONS, Gaussian, Samples, exact, far, product, ratios

SCHEDULE = schedules.scaled_linear()
DATA = Gaussian.usual()
LEVELS = 5
METHOD = Endpoint(rows=2, levels=LEVELS)
TEACHER_PLAN = fs.compile("ddim", schedule=SCHEDULE, steps=LEVELS, grid="trailing")
TIMES = [row.t for row in TEACHER_PLAN.rows]
FAST = Settings(steps=320, batch=40, rate=0.06, optimiser="adamw", width=0, clip=0, state_every=10**6, log_every=10**6)


def trained(folder: Path, settings: Settings = FAST) -> fs.Network:
    teacher = exact(DATA, SCHEDULE, TIMES)
    roles = student_of(teacher)
    with torch.no_grad():  # not where the teacher is
        for parameter in roles[STUDENT].module.parameters():
            parameter.mul_(0.5)
    train(Run(METHOD, roles, Samples(DATA, TEACHER_PLAN, teacher), settings, folder))
    return roles[STUDENT].network


def errors(student: fs.Network) -> list[float]:
    """How far the student is, at each level, from the product of the teacher's steps that are left."""
    steps = list(pairwise([*ratios(SCHEDULE, TIMES), 0.0]))
    return [far(student, DATA, time, product([DATA.ddim(*s) for s in steps[i:]])) for i, time in enumerate(TIMES)]


def test_every_level_ends_where_the_teacher_does_and_so_does_every_number_of_rows(tmp_path: Path) -> None:
    student = trained(tmp_path)
    assert max(errors(student)) < 1e-3
    noise = torch.cat([torch.eye(DIMENSIONS), torch.zeros(1, DIMENSIONS)]).double()
    one = METHOD.plan(student, 1)
    wanted = fs.sample(TEACHER_PLAN, exact(DATA, SCHEDULE, TIMES), start=noise * TEACHER_PLAN.entry[1])
    assert torch.allclose(fs.sample(one, student, start=noise * one.entry[1]), wanted, atol=1e-3)


@pytest.mark.parametrize("fault", ["next level", "other samples"])
def test_a_fault_in_the_states_is_far_from_it(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Samples.batch

    def batch(self: Samples, numbers: list[int]) -> Batch:
        found = inner(self, numbers)
        assert found.along is not None
        return replace(found, along=found.along.roll(1, 1 if fault == "next level" else 0))

    monkeypatch.setattr(Samples, "batch", batch)
    assert max(errors(trained(tmp_path, replace(FAST, steps=200)))) > 5e-3


def test_samples_are_shared_out_to_the_levels_as_said() -> None:
    chosen = Endpoint(levels=4, first=0.4).chosen(Draws(0, 0, range(1000), range(1000), 1000))
    assert np.bincount(chosen).tolist() == [400, 200, 200, 200]
    assert not Endpoint(rows=1, levels=1).chosen(Draws(0, 0, range(9), range(9), 9)).any()
    assert not Endpoint(levels=4, first=1).chosen(Draws(0, 0, range(9), range(9), 9)).any()


def test_the_rows_of_a_plan_are_spread_over_the_levels() -> None:
    network = exact(DATA, SCHEDULE, TIMES)
    times = {rows: [row.t for row in Endpoint(levels=10).plan(network, rows).rows] for rows in (1, 2, 4, 10)}
    assert times[1] == [999.0]
    assert times[2] == [999.0, 499.0]
    assert times[4] == [999.0, 799.0, 499.0, 299.0]
    assert times[10] == [999.0 - 100 * i for i in range(10)]
    with pytest.raises(fs.InvalidInput, match="draws in 1 to 10 rows, its levels, got 11"):
        Endpoint(levels=10).plan(network, 11)


def variances(student: fs.Network, plan: fs.Plan, seed: int) -> torch.Tensor:
    """(D,) of many drawings."""
    return fs.sample(plan, student, shape=(4096, DIMENSIONS), seed=range(seed, seed + 4096)).double().var(0)


def test_noise_drawn_anew_keeps_the_distribution_in_more_rows_and_ddim_does_not(tmp_path: Path) -> None:
    student = trained(tmp_path)
    wanted = variances(exact(DATA, SCHEDULE, TIMES), TEACHER_PLAN, 5000)
    shares = {
        sampler: variances(student, replace(METHOD, sampler=sampler).plan(student, 2), 0) / wanted
        for sampler in ("consistency", "ddim")
    }
    assert (shares["consistency"] - 1).abs().max() < 0.08  # each of the two is known to 2%
    assert shares["ddim"].min() > 1.25


def test_states_on_the_way_are_those_of_the_teachers_rows_and_are_kept_with_the_pairs(tmp_path: Path) -> None:
    pipe = fs.load(tiny.write(tmp_path / "tiny.safetensors"))
    teacher_plan = pairs.Teacher.of(pipe, None, 2.0, 4).order.plan
    teacher = pairs.Teacher.of(pipe, None, 2.0, 4).keeping(
        Endpoint(rows=1, levels=2).suited(teacher_plan).along(pipe.model.schedule)
    )
    found = pairs.drawn(teacher, 6, tmp_path / "pairs", batch=4)
    plain = pairs.drawn(pairs.Teacher.of(pipe, None, 2.0, 4), 6, tmp_path / "plain", batch=4)
    assert torch.allclose(found.states(range(6)), plain.states(range(6)), atol=1e-5)
    batch = found.batch([1, 4])
    assert batch.along is not None
    assert batch.along.shape == (2, 2, *found.shape)
    assert batch.noise is not None
    assert torch.allclose(batch.along[:, 0].float(), batch.noise * teacher.order.plan.entry[1], atol=2e-3)
    again = pairs.drawn(teacher, 6, tmp_path / "pairs", batch=4).batch([1, 4])
    assert again.along is not None
    assert torch.equal(again.along, batch.along)
    with pytest.raises(fs.InvalidInput, match="holds pairs of another teacher"):
        pairs.drawn(pairs.Teacher.of(pipe, None, 2.0, 4), 6, tmp_path / "pairs", batch=4)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (
            Endpoint(rows=2, levels=8),
            "learns 8 levels, and the teacher's plan has 6: give the teacher more steps, or leve",
        ),
        (Endpoint(rows=1, levels=1, times=(7.5,)), r"at 1 times.*, 6 rows of .* on quadratic, does not meet 7.5"),
    ],
)
def test_a_teacher_whose_steps_do_not_meet_the_levels_is_refused(method: Endpoint, words: str, tmp_path: Path) -> None:
    model = tiny.write(tmp_path / "tiny.safetensors")
    with pytest.raises(fs.InvalidInput, match=words):
        distill(model, method, tmp_path / "run", source=Source(steps=6, count=16, held_out=16))
    assert not (tmp_path / "run").exists()


def test_a_student_knows_a_plan_for_each_number_of_rows(tmp_path: Path) -> None:
    found = distill(
        tiny.write(tmp_path / "tiny.safetensors"),
        Endpoint(rows=2, levels=4),  # on the teacher's own grid
        tmp_path / "run",
        settings=Settings(steps=4, batch=8, state_every=2),
        source=Source(steps=4, count=16, held_out=16, guidance=2.0),
    )
    assert {rows: found.pipe(seed=1, steps=rows).nfe for rows in (1, 2, 4)} == {1: 1.0, 2: 2.0, 4: 4.0}
    assert found.pipe(seed=1).nfe == 2.0
    teacher = pairs.Teacher.of(fs.load(tmp_path / "tiny.safetensors"), None, 2.0, 4).order.plan
    assert [row.t for row in found.pipe.plan().rows] == [row.t for row in teacher.rows[::2]]
    with pytest.raises(fs.InvalidInput, match="a plan of its own of 1 or 2 or 4 steps, which decides steps"):
        found.pipe(steps=3)
    assert found.pipe(seed=1, preset="realtime").nfe == 1.0
    assert found.pipe(seed=1, preset="best").nfe == 4.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rows": 11}, "rows must be a whole number from 1 to 10, got 11"),
        ({"levels": 0}, "levels must be a whole number from 1 to 100, got 0"),
        ({"rows": True}, "got True"),
        ({"first": 0.0}, "first must be a finite number above zero, got 0"),
        ({"first": "all"}, "got 'all'"),
        ({"sampler": "euler"}, "unknown sampler 'euler'"),
    ],
)
def test_other_settings_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(fs.InvalidInput, match=words):
        Endpoint(**options)  # type: ignore[arg-type]


def test_pictures_without_their_trajectory_are_refused() -> None:
    roles = student_of(exact(DATA, SCHEDULE, TIMES))
    with pytest.raises(fs.InvalidInput, match="trajectories"):
        next(METHOD.losses(roles, Batch(torch.zeros(2, 3)), Phase(0, 1, 0, 10, 0), Draws(0, 0, [0, 1], [0, 1], 2)))


def test_levels_are_compiled_once() -> None:
    assert endpoint.levels_of(SCHEDULE, 4) is endpoint.levels_of(SCHEDULE, 4)
