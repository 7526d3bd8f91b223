"""The teacher within a share of the time, by a clock that counts evaluations."""

import dataclasses

import pytest
import torch

import fewstep as fs
from fewstep.denoise.base import Wrapper
from fewstep.tuning import Problem, Sizes
from fewstep.tuning.problem import overall, squares
from fewstep.tuning.stopwatch import Stopwatch
from fewstep.tuning.teacher import LEAST_FINDING, find_teacher
from fewstep.tuning.teaching import taught

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
    return find_teacher(problem, range(8), DEFAULT, share=0.0, enough=enough, clock=lambda: denoiser.seconds), told


@pytest.mark.parametrize(
    ("limit", "evaluations", "levels"), [(0, 216, 1), (507, 216, 1), (508, 504, 2), (1e9, 2232, 4)]
)
def test_another_doubling_is_begun_only_where_it_fits(counting, limit, evaluations, levels):
    teacher, told = found(counting, 8 * limit)
    assert teacher.evaluations == counting.seconds == 8 * (DEFAULT.nfe + evaluations)
    assert len(told) == levels
    assert told[0] == (8 * (DEFAULT.nfe + 3 * (24 + 48)), 8 * 3 * 96)
    assert teacher.plan.nfe <= 24 * 2**levels


def test_the_error_that_is_reported_is_that_of_the_best_so_far(counting):
    teacher, _ = found(counting, 0)
    problem = Problem.of(counting.inner, (6,), batch=8)
    halved = fs.compile(teacher.plan.recipe.sampler, schedule=LINEAR, steps=24, grid=teacher.plan.recipe.grid)
    change = squares(problem.solve(halved, range(8)), problem.solve(teacher.plan, range(8)))
    assert teacher.plan.nfe == 48
    assert teacher.error == pytest.approx(overall(change, "rmse"))
    assert found(counting, 1e9)[0].error < teacher.error


@pytest.mark.parametrize(("seconds", "pilots"), [(1, 4), (20_000, 8), (10_000_000, 16)])
def test_a_slow_model_has_fewer_images_to_find_the_teacher_by_and_a_bounded_one(counting, seconds, pilots):
    problem = Problem.of(counting, (6,), batch=8)
    began = counting.seconds
    result = taught(problem, DEFAULT, None, Stopwatch(seconds, lambda: counting.seconds), lambda *words: None)
    finding = result.teacher.evaluations
    assert finding % pilots == 0
    assert finding >= pilots * (LEAST_FINDING + DEFAULT.nfe)
    least = pilots * (LEAST_FINDING + DEFAULT.nfe)
    assert finding <= max(least, 0.1 * seconds)
    assert result.each == 1
    solved = result.teacher.plan.nfe * result.sizes.solved
    assert counting.seconds - began == 2 * 16 + finding + solved
    assert result.sizes == Sizes.of(16) or solved <= 0.2 * seconds


def test_given_sizes_and_enough_time_decide_the_teacher(counting):
    sizes = dataclasses.replace(Sizes.of(16), pilot=8)
    problem = Problem.of(counting, (6,), batch=8)
    result = taught(problem, DEFAULT, sizes, Stopwatch(1e9, lambda: counting.seconds), lambda *words: None)
    assert result.teacher == find_teacher(problem, range(8), DEFAULT)
    assert torch.equal(result.train.targets, problem.solve(result.teacher.plan, range(16)))


def test_a_model_without_finite_images_is_refused_at_once():
    lost = Counting(fs.Network(lambda x, t: x * float("nan"), LINEAR))
    problem = Problem.of(lost, (6,), batch=8)
    with pytest.raises(fs.InvalidInput, match="gives no finite images in 48 steps"):
        find_teacher(problem, range(8), DEFAULT, enough=lambda more: True)
