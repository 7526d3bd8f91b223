"""The rivals on held-out images: who is measured on how many, and what is said where there is no time."""

from __future__ import annotations

import json
import math
from importlib.resources import files

import pytest
import torch

import fewstep as fs
from fewstep.tuning import Problem, Sizes, Solutions, TuningSettings, tune
from fewstep.tuning.rivals import contenders_of, deterministic, strongest
from fewstep.tuning.standings import FIRST, MARGIN, standings_of
from fewstep.tuning.verdict import named

from .mixture import six

LINEAR = fs.schedules.linear()


def mixture() -> Problem:
    return Problem.of(six(LINEAR, std=0.3), (6,), batch=256, digest="0123456789abcdef")


@pytest.fixture(scope="module")
def held_out() -> Solutions:
    converged = fs.compile("deis-3", schedule=LINEAR, steps=96, grid="quadratic")
    return Solutions(range(96), mixture().solve(converged, range(96)))


def test_the_strongest_are_known_pairs_without_noise() -> None:
    pairs = strongest()
    assert len(pairs) == len(set(pairs)) == 12
    assert {name for name, _ in pairs} <= set(deterministic())
    assert {grid for _, grid in pairs} <= set(fs.GRIDS)


def test_the_default_of_a_model_that_nothing_is_known_of_is_the_best_alone() -> None:
    named = fs.load(lambda x, t: x, spec=fs.NetworkSpec(LINEAR, "sample", sample_shape=(1, 4, 4))).plan()
    assert (named.recipe.sampler, named.recipe.grid) == strongest()[0]
    alone = json.loads(files("fewstep.tuning").joinpath("contenders.json").read_text())["alone"].values()
    mean = {pair: math.prod(case[f"{pair[0]} on {pair[1]}"] for case in alone) for pair in strongest()}
    assert min(mean, key=mean.__getitem__) == strongest()[0]
    assert fs.load("digits").plan().recipe.sampler == "deis-3"  # which says so itself


def test_those_that_may_be_the_best_are_measured_on_all_images_and_the_others_on_the_first(held_out: Solutions) -> None:
    problem = mixture()
    default = fs.compile("ddim", schedule=LINEAR, steps=5)
    found = standings_of(problem, default, contenders_of(LINEAR, 5), (), held_out)
    assert not found.missing
    first = {one.plan.digest: problem.error(one.plan, held_out.first(FIRST)) for one in found.measured}
    least = min(first.values())
    assert first[default.digest] > MARGIN * least
    for one in found.measured:
        near = first[one.plan.digest] <= MARGIN * least or one.plan == default
        assert len(one.errors) == (96 if near else FIRST)
        torch.testing.assert_close(
            one.errors, problem.errors(one.plan, held_out.first(len(one.errors))), rtol=1e-4, atol=0
        )
    every = {plan.digest: problem.error(plan, held_out) for plan in (default, *contenders_of(LINEAR, 5))}
    assert found.best("psnr").plan.digest == min(every, key=every.__getitem__)


def test_plans_without_time_are_missing_and_the_default_never_is(held_out: Solutions) -> None:
    default = fs.compile("ddim", schedule=LINEAR, steps=5)
    contenders = contenders_of(LINEAR, 5)
    found = standings_of(mixture(), default, contenders, (), held_out, enough=lambda: True)
    assert [one.plan for one in found.measured] == [default]
    assert list(found.missing) == contenders
    assert len(found.default.errors) == 96


def test_a_plan_that_was_begun_but_not_measured_on_all_images_is_missing(held_out: Solutions) -> None:
    asked = 0

    def enough() -> bool:
        nonlocal asked
        asked += 1
        return asked > len(contenders)

    default = fs.compile("ddim", schedule=LINEAR, steps=5)
    contenders = contenders_of(LINEAR, 5)
    found = standings_of(mixture(), default, contenders, (), held_out, enough=enough)
    assert len(found.measured) == len(contenders) + 1
    behind = {one.plan.digest for one in found.measured if len(one.errors) == FIRST} - {p.digest for p in found.missing}
    assert found.missing
    least = min(mixture().error(one.plan, held_out.first(FIRST)) for one in found.measured)
    for one in found.measured:
        if one.plan.digest in behind:
            assert mixture().error(one.plan, held_out.first(FIRST)) > MARGIN * least


def test_plans_that_drew_all_of_few_images_are_not_missing(held_out: Solutions) -> None:
    asked = 0

    def enough() -> bool:
        nonlocal asked
        asked += 1
        return asked > len(contenders)

    default = fs.compile("ddim", schedule=LINEAR, steps=5)
    contenders = contenders_of(LINEAR, 5)
    found = standings_of(mixture(), default, contenders, (), held_out.first(16), enough=enough)
    assert found.missing == ()
    assert len(found.foremost) == len(contenders) + 1


def test_the_strongest_are_compared_whatever_is_searched_among() -> None:
    settings = TuningSettings(samplers=["ddim"], sizes=Sizes.of(64), iterations=0, seconds=10_000)
    found = tune(mixture(), rows=5, settings=settings).certificate
    assert found.rivals["missing"] == []
    assert found.rivals["measured"] >= 11
    assert not found.rival.startswith("ddim")
    best = min(row.typical.value for row in found.compared if row.images == 64 and row.kind in ("untuned", "default"))
    own = next(row for row in found.compared if row.digest == found.plan)
    assert found.over_untuned.value == pytest.approx(best / own.typical.value)


def test_a_tuning_without_time_for_its_rivals_names_them() -> None:
    clock = iter(range(0, 10**6, 50))
    settings = TuningSettings(samplers=["ddim"], sizes=Sizes.of(64), seconds=60, clock=lambda: float(next(clock)))
    found = tune(mixture(), rows=5, settings=settings).certificate
    others = [plan for plan in contenders_of(LINEAR, 5) if plan != mixture().untuned(5)]
    assert set(found.rivals["missing"]) >= {named(plan) for plan in others}
    assert "nothing is claimed about the best" in found.opposed
