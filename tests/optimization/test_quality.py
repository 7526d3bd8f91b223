"""What a variant loses: figures that could have come out otherwise, and what is said of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import fewstep as fs
from fewstep import InvalidInput
from fewstep.benchmark.yardstick import Adherence
from fewstep.measure.figure import Figure
from fewstep.optimization.quality import FIRST, Judge, Loss, error_gained, points_lost
from fewstep.optimization.trial import of_prompts, percent
from fewstep.pipeline import Pipeline
from fewstep.variants.network import with_module
from fewstep.zoo.scenes.prompts import held_out_prompts


def figure(value: float, half: float = 0.0, n: int = 100) -> Figure:
    return Figure("a", value, value - half, value + half, n, "less")


def judge_of(pipe: Pipeline, count: int = 16, steps: int = 4, sampler: str = "dpmpp-2m") -> Judge:
    return Judge(pipe, pipe.plan(sampler, steps=steps), 1.0, lambda number: number % 3, count, 8)


def worse(pipe: Pipeline, by: float) -> Pipeline:
    """With weights that are off by a share."""
    import copy

    module = copy.deepcopy(pipe.model.module)
    assert module is not None
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1 + by * torch.randn(parameter.shape, generator=draw))
    return Pipeline(with_module(pipe.model, module, {"off": f"{by:g}"}))


def test_the_loss_is_the_growth_of_the_typical_error() -> None:
    base = torch.tensor([1.0, 4.0, 9.0, 16.0], dtype=torch.float64)
    found = error_gained(base * 1.21, base)
    assert found.value == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1)  # each image by the same factor
    mixed = error_gained(base * torch.tensor([2.0, 0.5, 2.0, 0.5]), base)
    assert mixed.value == pytest.approx(0.0, abs=1e-12)
    assert mixed.low < 0 < mixed.high


def test_prompts_that_none_lost_are_not_known_to_be_lost_by_none() -> None:
    right = torch.ones(100, dtype=torch.float64)
    none = points_lost(right, right)
    assert none.value == 0.0
    assert 0.015 < none.high < 0.045  # three of a hundred, as a rule
    some = points_lost(right, right.clone().index_fill_(0, torch.arange(20), 0.0))
    assert some.value == pytest.approx(0.2)
    assert 0.1 < some.low < 0.15
    assert 0.24 < some.high < 0.31


def test_prompts_are_told_in_words() -> None:
    assert of_prompts(-0.004, 0.008, 256) == "no fewer of 256 prompts are drawn right, at most 0.80% fewer"
    assert of_prompts(0.02, 0.03, 1024) == "2.00% fewer of 1,024 prompts are drawn right, at most 3.00% fewer"
    assert percent(-1e-6) == "0.00%"


@pytest.mark.parametrize(
    ("loss", "most", "within", "beyond", "words"),
    [
        (Loss(figure(0.005, 0.004), None), 0.01, True, False, None),
        (Loss(figure(0.02, 0.005), None), 0.01, False, True, "the error grows by 2.00% .*, more than 1.00%"),
        (Loss(figure(0.005, 0.01), None), 0.01, False, False, "not surely within 1.00%: about 400 images would tell"),
        (Loss(figure(0.5, 0.1), figure(0.0, 0.005)), 0.01, True, False, None),  # of readable pictures that decides
        (Loss(figure(0.0), figure(0.03, 0.01)), 0.01, False, True, "of the prompts are drawn right no more: 3.00%"),
        (Loss(figure(0.0), None, lost=2), 0.01, False, True, "2 images are not finite"),
    ],
)
def test_a_loss_is_within_an_allowance_surely_or_not(
    loss: Loss, most: float, within: bool, beyond: bool, words: str | None
) -> None:
    assert (loss.within(most), loss.beyond(most)) == (within, beyond)
    if words is not None:
        assert words.split(" .*")[0] in loss.words(most)
        assert words.split(".* ")[-1].split(".*, ")[-1] in loss.words(most)


def test_the_model_itself_loses_nothing_and_worse_weights_do(pipe: Pipeline) -> None:
    judge = judge_of(pipe)
    count, none = judge.judged(judge.gallery(pipe), 0.01)
    assert count == 16
    assert (none.error.value, none.error.low, none.error.high) == (0.0, 0.0, 0.0)
    _, some = judge.judged(judge.gallery(worse(pipe, 0.2)), 0.01)
    assert some.beyond(0.01)
    assert some.error.value > 0.1


def test_the_error_is_that_to_the_converged_solution(pipe: Pipeline) -> None:
    few, many = (judge_of(pipe, steps=steps) for steps in (3, 12))
    errors = [float(one.errors(one.own, 16).mean().sqrt()) for one in (few, many)]
    assert errors[1] < errors[0] / 3
    assert few.targets.plan.nfe() > 20


def test_images_that_are_lost_are_counted_and_left_out_of_the_error(pipe: Pipeline) -> None:
    judge = judge_of(pipe)
    gallery = judge.gallery(pipe)
    gallery.first(16)
    gallery._drawn[0][3] = math.nan
    loss = judge.loss(gallery, 16)
    assert loss.lost == 1
    assert loss.error.n == 15
    assert loss.error.value == 0.0


def test_more_images_are_looked_at_until_it_is_sure(pipe: Pipeline) -> None:
    judge = judge_of(pipe, count=4 * FIRST + 8)
    assert judge.sizes == [FIRST, 2 * FIRST, 4 * FIRST, 4 * FIRST + 8]
    assert judge_of(pipe, count=50).sizes == [50]
    count, _ = judge.judged(judge.gallery(worse(pipe, 0.3)), 0.01)
    assert count == FIRST


def test_fewer_rows_are_those_of_the_best_sampler_and_beaten_by_it_in_more(pipe: Pipeline) -> None:
    judge = judge_of(pipe, steps=8, sampler="ddim")
    few, most = judge.best(4), judge.best(8, judge.plan)
    assert few is not None
    assert most is not None
    assert len(few.plan.rows) <= 4
    assert most.plan.digest != judge.plan.digest  # ddim is seldom the best
    found = judge.beside_fewer(pipe, 4)
    assert found is not None
    assert found[1].high < 0  # the same model in twice the rows has less error
    beaten = judge.beside_fewer(worse(pipe, 0.5), 4)
    assert beaten is not None
    assert beaten[1].low > 0


def test_prompts_that_are_read_decide_where_somebody_can_read() -> None:
    pipe = fs.load("scenes")
    prompts = held_out_prompts(8)
    judge = Judge(
        pipe, pipe.plan("dpmpp-2m", steps=6), 2.0, lambda number: prompts[number].text, 8, 8, Adherence(prompts)
    )
    _, same = judge.judged(judge.gallery(pipe), 0.01)
    assert same.adherence is not None
    assert same.decisive is same.adherence
    assert same.adherence.value == 0.0
    gallery = judge.gallery(pipe)
    right = judge._right(gallery.first(8)).mean()
    gallery._drawn[0].fill_(0.0)
    loss = judge.loss(gallery, 8)
    assert loss.adherence is not None
    assert loss.adherence.value == pytest.approx(float(right))
    assert right > 0.5


def test_a_sampler_that_draws_noise_is_refused(pipe: Pipeline) -> None:
    with pytest.raises(InvalidInput, match="ddpm draws noise on the way: optimise with a sampler without noise"):
        judge_of(pipe, sampler="ddpm")
    assert replace(judge_of(pipe), count=8).count == 8
