"""The two errors of a plan: over all images, and of the typical one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.measure.distance import overall
from fewstep.tuning import Problem, Sizes, TuningSettings, tune
from fewstep.tuning.certificate import Compared, error_interval, gain
from fewstep.tuning.page import page_of

from .mixture import six
from .test_certificate import certificate

LINEAR = fs.schedules.linear()
SIZES = Sizes(train=256, validation=128, held_out=512, rungs=(8, 32))


def test_the_typical_error_is_that_of_the_mean_psnr():
    squares = torch.tensor([1e-4, 4e-4, 0.25], dtype=torch.float64)
    mean_psnr = float((20 * math.log10(2) - 10 * squares.log10()).mean())
    assert 20 * math.log10(2 / overall(squares, "psnr")) == pytest.approx(mean_psnr)
    assert overall(squares, "rmse") == pytest.approx(math.sqrt(0.2505 / 3))
    assert overall(torch.zeros(3), "psnr") == pytest.approx(1e-12)
    assert overall(torch.tensor([1.0, torch.inf]), "psnr") == torch.inf
    assert error_interval(squares, "psnr").value == pytest.approx(overall(squares, "psnr"))


def test_one_image_that_forks_decides_the_one_gain_and_not_the_other():
    before = torch.full((100,), 1e-4, dtype=torch.float64)
    after = before / 4
    before[0] = after[0] = 1.0
    assert gain(before, after).value == pytest.approx(1.0, abs=0.01)
    assert gain(before, after, "psnr").value == pytest.approx(2**0.99)
    assert gain(before, after, "psnr").low > 1.9


def forking(objective):
    """A mixture of two far modes and noise between: the paths of a few images fork."""
    return Problem.of(six(LINEAR, std=0.1), (6,), batch=256, objective=objective)


@pytest.fixture(scope="module")
def plans():
    settings = TuningSettings(seconds=10_000, iterations=150, sizes=SIZES)
    return {name: tune(forking(name), rows=4, settings=settings) for name in ("rmse", "psnr")}


def test_each_objective_wins_by_its_own_error(plans):
    numbers = range(2**29, 2**29 + 2048)
    problem = forking("rmse")
    teacher = fs.compile("unipc-3", schedule=LINEAR, steps=96, grid="quadratic")
    targets = problem.solve(teacher, numbers)
    errors = {}
    for name, found in plans.items():
        results = problem.solve(found.plan, numbers)
        errors[name] = (results.double() - targets.double()).square().mean(dim=1)
    for name, other in (("rmse", "psnr"), ("psnr", "rmse")):
        assert overall(errors[name], name) < overall(errors[other], name), name


def test_the_certificate_is_of_the_objective(plans):
    found = plans["psnr"].certificate
    assert found.objective == "psnr"
    assert found.kind == "learned"
    assert "times less error of the typical image than the default" in found.verdict
    typical = [row.typical.value for row in found.compared]
    assert typical == sorted(typical)
    assert all(row.typical.value < row.rmse.value for row in found.compared)
    own, rivals = found.compared[0], [row for row in found.compared if row.kind in ("untuned", "default")]
    assert found.over_untuned.value == pytest.approx(min(row.typical.value for row in rivals) / own.typical.value)
    page = page_of(found.to_json())
    assert page.index("<th>typical image</th>") < page.index("<th>error</th>")
    usual = page_of(certificate().to_json())
    assert usual.index("<th>error</th>") < usual.index("<th>typical image</th>")


def test_an_image_that_is_lost_is_an_error_without_bounds():
    plan = fs.compile("ddim", schedule=LINEAR, steps=4)
    row = Compared.of("default", plan, torch.tensor([0.1, torch.inf], dtype=torch.float64), 4)
    assert (row.rmse.value, row.typical.value) == (np.inf, np.inf)


@pytest.mark.parametrize("objective", ["rmse", "psnr"])
def test_a_plan_that_loses_an_image_gains_nothing(objective):
    before, after = torch.tensor([torch.inf, 0.1, 0.1]), torch.tensor([torch.inf, 0.2, 0.2])
    assert gain(before.double(), after.double(), objective).value == 0
    assert gain(before.double(), after.double(), objective).low == 0
    assert gain(before.double(), torch.tensor([0.1, 0.1, 0.1]).double(), objective).value == np.inf


def test_an_unknown_objective_is_named():
    with pytest.raises(fs.InvalidInput, match="unknown objective 'psn': did you mean 'psnr'"):
        replace(forking("rmse"), objective="psn")
