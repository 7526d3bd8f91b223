"""The teacher within a share of the time, by a clock that counts evaluations."""

import dataclasses

import pytest
import torch

import fewstep as fs
from fewstep.denoise.base import Wrapper
from fewstep.measure.converged import LEAST_FINDING, Goal, find_plan
from fewstep.measure.distance import overall, squares
from fewstep.tuning import Problem, Sizes, TuningSettings
from fewstep.tuning.task import TuningTask
from fewstep.tuning.teacher import SHARE, lessons_of
from fewstep.tuning.timelimit import TimeLimit

from .mixture import six

LINEAR = fs.schedules.linear()
DEFAULT = fs.compile("deis-3", schedule=LINEAR, steps=4, grid="quadratic")


class Counting(Wrapper):
    """Each evaluation of an image takes a second."""

    seconds = 0
    affine = False

    def estimate(self, x, level):
        self.seconds += len(x)
        return self.inner.estimate(x, level)


@pytest.fixture
def counting():
    return Counting(six(LINEAR, std=0.02))


def found(denoiser, limit):
    """The teacher of 8 images, which is never near enough, in `limit` seconds."""
    told = []

    def enough(more):
        told.append((denoiser.seconds, more))
        return denoiser.seconds + more > limit

    problem = Problem.of(denoiser, (6,), batch=8)
    return find_plan(problem.flow, range(8), Goal(0.0, judged=DEFAULT), enough, lambda: denoiser.seconds), told


def lessons(denoiser, seconds, sizes=None):
    """Of a denoiser that counts the seconds."""
    settings = TuningSettings(seconds=seconds, sizes=sizes, clock=lambda: denoiser.seconds)
    time = TimeLimit(seconds, settings.clock)
    problem = Problem.of(denoiser, (6,), batch=8)
    return lessons_of(TuningTask(problem, 4, DEFAULT, settings, False, time, lambda *words: None))


@pytest.mark.parametrize(("limit", "rows", "levels"), [(0, 216, 1), (411, 216, 1), (412, 408, 2), (1e9, 1176, 4)])
def test_another_doubling_is_begun_only_where_it_fits(counting, limit, rows, levels):
    teacher, told = found(counting, 8 * limit)
    assert teacher.rows == counting.seconds == 8 * (len(DEFAULT.rows) + rows)
    assert len(told) == levels
    assert told[0] == (8 * (len(DEFAULT.rows) + 3 * (24 + 48)), 8 * 2 * 96)  # one family is behind
    assert len(teacher.plan.rows) <= 24 * 2**levels


def test_the_error_that_is_reported_is_that_of_the_best_so_far(counting):
    teacher, _ = found(counting, 0)
    problem = Problem.of(counting.inner, (6,), batch=8)
    halved = fs.compile(teacher.plan.recipe.sampler, schedule=LINEAR, steps=24, grid=teacher.plan.recipe.grid)
    change = squares(problem.solve(halved, range(8)), problem.solve(teacher.plan, range(8)))
    assert len(teacher.plan.rows) == 48
    assert teacher.error == pytest.approx(overall(change, "rmse"))
    assert found(counting, 1e9)[0].error < teacher.error


@pytest.mark.parametrize(("seconds", "pilots"), [(1, 4), (20_000, 8), (10_000_000, 16)])
def test_a_slow_model_has_fewer_images_to_find_the_teacher_by_and_a_bounded_one(counting, seconds, pilots):
    began = counting.seconds
    result = lessons(counting, seconds)
    finding = result.teacher.rows
    assert finding % pilots == 0
    assert finding >= pilots * (LEAST_FINDING + len(DEFAULT.rows))
    least = pilots * (LEAST_FINDING + len(DEFAULT.rows))
    assert finding <= max(least, 0.1 * seconds)
    assert result.each == 1
    solved = len(result.teacher.plan.rows) * (result.sizes.solved + result.sizes.held_out)
    assert counting.seconds - began == 2 * 16 + finding + solved
    assert result.sizes == Sizes.of(16) or solved <= 0.4 * seconds


def test_more_images_are_held_out_than_learned_from_where_time_is_short():
    assert Sizes.affordable(1e9, 1.0, 1.0) == Sizes.of(4096)
    short = Sizes.affordable(600.0, each=1.0, judging=0.4)
    assert (short.held_out, short.train, short.validation) == (256, 128, 64)
    assert short.held_out * 1.4 <= 0.6 * 600
    assert (short.train + short.validation) * 1.0 <= 0.4 * 600
    shorter = Sizes.affordable(60.0, each=1.0, judging=0.4)
    assert (shorter.held_out, shorter.train, shorter.validation) == (16, 16, 8)


def test_given_sizes_and_enough_time_decide_the_teacher(counting):
    sizes = dataclasses.replace(Sizes.of(16), pilot=8)
    problem = Problem.of(counting, (6,), batch=8)
    result = lessons(counting, 1e9, sizes)
    assert result.teacher == find_plan(problem.flow, range(8), Goal(SHARE, judged=DEFAULT, objective="psnr"))
    assert torch.equal(result.train.targets, problem.solve(result.teacher.plan, range(16)))
    own = result.teacher.plan.recipe
    finer = fs.compile(own.sampler, schedule=LINEAR, steps=2 * own.steps, grid=own.grid)
    assert torch.equal(result.held_out.targets, problem.solve(finer, result.held_out.numbers))


def test_a_model_without_finite_images_is_refused_at_once():
    lost = Counting(fs.Network(lambda x, t: x * float("nan"), LINEAR))
    problem = Problem.of(lost, (6,), batch=8)
    with pytest.raises(fs.InvalidInput, match="gives no finite images in 48 steps"):
        find_plan(problem.flow, range(8), Goal(SHARE, judged=DEFAULT), enough=lambda more: True)
