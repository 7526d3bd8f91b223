"""The choice among candidates that nobody measured: what a budget gives, its neighbours, and the least there is."""

from dataclasses import replace
from pathlib import Path

import pytest

import fewstep as fs
from benchmark.rows import MACHINE, figure, row
from fewstep.benchmark.choice import Budget, Candidate, decide
from fewstep.benchmark.choice.candidate import of_run
from fewstep.tuning.certificate import Interval


def of(sampler: str = "ddim", steps: int = 4, error: float = 0.5, seconds: float = 0.01, **more: object) -> Candidate:
    return of_run(row(sampler, steps, error, seconds, plan=f"{sampler}-{steps}", **more), Path("out"), MACHINE)


ROWS = [
    of("ddim", 4, 0.5, 0.010),
    of("unipc-3", 4, 0.4, 0.012),
    of("ddim", 8, 0.2, 0.020),
    of("unipc-3", 8, 0.1, 0.024),
    of("deis-3", 8, 0.3, 0.016),
    of("unipc-3", 16, 0.02, 0.050),
]


@pytest.mark.parametrize(
    ("budget", "chosen", "better", "cheaper"),
    [
        (Budget(nfe=8), "unipc-3-8", "unipc-3-16", "unipc-3-4"),
        (Budget(nfe=9), "unipc-3-8", "unipc-3-16", "unipc-3-4"),
        (Budget(nfe=4), "unipc-3-4", "ddim-8", None),
        (Budget(nfe=100), "unipc-3-16", None, "unipc-3-8"),
        (Budget(ms=20), "ddim-8", "unipc-3-8", "deis-3-8"),
        (Budget(ms=19), "deis-3-8", "ddim-8", "unipc-3-4"),
        (Budget(nfe=4, ms=11), "ddim-4", "unipc-3-4", None),
        (Budget(quality=0.9), "unipc-3-8", "unipc-3-16", "unipc-3-4"),
        (Budget(quality=0.995), "unipc-3-16", None, "unipc-3-8"),
    ],
    ids=str,
)
def test_a_budget_gives_the_best_within_it_and_the_neighbours(
    budget: Budget, chosen: str, better: str | None, cheaper: str | None
) -> None:
    choice = decide(ROWS, budget)
    if budget == Budget(nfe=4):  # the next better one is the best of those that cost as little
        better = "unipc-3-8"
    assert choice.chosen.plan == chosen
    assert (choice.better and choice.better.plan, choice.cheaper and choice.cheaper.plan) == (better, cheaper)


def test_a_cheaper_plan_that_is_as_good_up_to_a_hundredth_is_chosen_and_the_other_named() -> None:
    rows = [of("ddim", 6, 0.1005), of("ddim", 8, 0.1), of("ddim", 5, 0.1011)]
    choice = decide(rows, Budget(nfe=8))
    assert choice.chosen.nfe == 6
    assert choice.tied is not None
    assert choice.tied.nfe == 8
    assert choice.cheaper is not None
    assert choice.cheaper.nfe == 5
    assert decide(rows[1:], Budget(nfe=8)).tied is None


def test_another_figure_decides_in_its_own_direction() -> None:
    both = {
        "a": {"adherence": figure(0.7, "more"), "distance": figure(3.0, "less")},
        "b": {"adherence": figure(0.8, "more"), "distance": figure(4.0, "less")},
    }
    rows = [of(steps=4, figures=both["a"]), of(steps=5, figures=both["b"])]
    assert decide(rows, Budget(nfe=8), "adherence").chosen.nfe == 5
    assert decide(rows, Budget(nfe=8), "distance").chosen.nfe == 4
    with pytest.raises(fs.InvalidInput, match="the figure 'psnr': there are adherence, distance"):
        decide(rows, Budget(nfe=8), "psnr")


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(nfe=3), "the least is 4 evaluations"),
        (Budget(ms=5), r"the least is 10 ms an image \(ddim on quadratic, 4 evaluations\)"),
        (Budget(quality=0.9999), r"the best quality is 0.9996 \(unipc-3 on quadratic, 16 evaluations\)"),
        (Budget(nfe=8, quality=0.999), "the best quality within the rest of the budget is 0.9900"),
    ],
    ids=str,
)
def test_a_budget_that_nothing_meets_is_told_the_least(budget: Budget, message: str) -> None:
    with pytest.raises(fs.InvalidInput, match=message):
        decide(ROWS, budget)


def test_seconds_of_another_machine_are_not_used() -> None:
    here = MACHINE._replace(threads=4)
    foreign = of_run(row("ddim", 4, 0.5, 0.010), Path("out"), here)
    assert foreign.seconds is None
    assert decide([foreign], Budget(nfe=4)).chosen is foreign
    with pytest.raises(fs.InvalidInput, match="nothing was timed on this machine with as many threads"):
        decide([foreign], Budget(ms=100))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give a budget"),
        ({"nfe": 0}, "whole number of at least 1, got 0"),
        ({"nfe": 4.0}, "got 4.0"),
        ({"ms": float("nan")}, "finite number above 0"),
        ({"ms": 0.0}, "finite number above 0"),
        ({"quality": 1.5}, "at most 1, got 1.5"),
        ({"quality": 0.0}, "above 0"),
        ({"nfe": True}, "got True"),
        ({"ms": "3"}, "finite number above 0, got '3'"),
        ({"ms": True}, "finite number above 0, got True"),
        ({"quality": True}, "at most 1, got True"),
        ({"quality": "0.9"}, "at most 1, got '0.9'"),
    ],
)
def test_bad_budgets_are_refused(given: dict, message: str) -> None:
    with pytest.raises(fs.InvalidInput, match=message):
        Budget(**given)


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(fs.InvalidInput, match="nothing is measured"):
        decide([], Budget(nfe=4))


def test_for_a_quality_candidates_that_have_only_an_error_are_compared_by_it() -> None:
    known = of("ddim", 4, 0.5)
    tuned = replace(of("unipc-3", 4, 0.1), figures={"error": Interval(0.1, 0.09, 0.12)})
    assert decide([tuned], Budget(nfe=4)).chosen is tuned
    assert decide([known, tuned], Budget(nfe=4)).chosen is tuned
    assert decide([known, tuned], Budget(quality=0.5)).chosen is known
    with pytest.raises(fs.InvalidInput, match="'adherence': there are error; take one of these"):
        decide([tuned], Budget(nfe=4), "adherence")
    with pytest.raises(fs.InvalidInput, match="'adherence': there are error; its prompts say nothing"):
        decide([tuned], Budget(nfe=4), "adherence", "its prompts say nothing")


def test_rows_of_samplers_that_draw_noise_say_what_to_do() -> None:
    noisy = of("euler-a", 4, figures={"saturation": figure(0.1)})
    with pytest.raises(fs.InvalidInput, match="samplers that draw noise have none, so leave out --no-measure"):
        decide([noisy], Budget(nfe=4))
