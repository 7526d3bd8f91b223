"""The choice among candidates that nobody measured: what a budget gives, its neighbours, and the least there is."""

from dataclasses import replace

import pytest

import fewstep as fs
from benchmark.made_up import figure, row
from fewstep.benchmark import Budget, Measured, decide
from fewstep.benchmark.measured import UNKNOWN


def of(sampler: str = "ddim", steps: int = 4, error: float = 0.5, seconds: float = 0.01, **more: object) -> Measured:
    return row(sampler, steps, error, seconds, digest=f"{sampler}-{steps}", **more)


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
        (Budget(rows=8), "unipc-3-8", "unipc-3-16", "unipc-3-4"),
        (Budget(rows=9), "unipc-3-8", "unipc-3-16", "unipc-3-4"),
        (Budget(rows=4), "unipc-3-4", "ddim-8", None),
        (Budget(rows=100), "unipc-3-16", None, "unipc-3-8"),
        (Budget(ms=20), "ddim-8", "unipc-3-8", "deis-3-8"),
        (Budget(ms=19), "deis-3-8", "ddim-8", "unipc-3-4"),
        (Budget(rows=4, ms=11), "ddim-4", "unipc-3-4", None),
        (Budget(quality=0.9), "unipc-3-8", "unipc-3-16", "unipc-3-4"),
        (Budget(quality=0.995), "unipc-3-16", None, "unipc-3-8"),
    ],
    ids=str,
)
def test_a_budget_gives_the_best_within_it_and_the_neighbours(
    budget: Budget, chosen: str, better: str | None, cheaper: str | None
) -> None:
    choice = decide(ROWS, budget)
    if budget == Budget(rows=4):  # the next better one is the best of those that cost as little
        better = "unipc-3-8"
    assert choice.chosen.plan.digest == chosen
    assert (choice.better and choice.better.plan.digest, choice.cheaper and choice.cheaper.plan.digest) == (
        better,
        cheaper,
    )


def test_evaluations_count_what_guidance_adds() -> None:
    rows = [of("ddim", 4, 0.5, nfe=8.0), of("ddim", 6, 0.3, nfe=12.0), of("learned", 8, 0.2, nfe=10.0)]
    assert decide(rows, Budget(rows=6)).chosen.plan.digest == "ddim-6"
    choice = decide(rows, Budget(nfe=11))
    assert choice.chosen.plan.digest == "learned-8"
    assert choice.better is None
    assert choice.cheaper is rows[0]
    with pytest.raises(fs.InvalidInput, match=r"meets at most NFE 7: the least is NFE 8 \(ddim on quadratic\)"):
        decide(rows, Budget(nfe=7))


def test_a_cheaper_plan_that_is_as_good_up_to_a_hundredth_is_chosen_and_the_other_named() -> None:
    rows = [of("ddim", 6, 0.1005), of("ddim", 8, 0.1), of("ddim", 5, 0.1011)]
    choice = decide(rows, Budget(rows=8))
    assert choice.chosen.plan.rows == 6
    assert choice.tied is not None
    assert choice.tied.plan.rows == 8
    assert choice.cheaper is not None
    assert choice.cheaper.plan.rows == 5
    assert decide(rows[1:], Budget(rows=8)).tied is None


def test_another_figure_decides_in_its_own_direction() -> None:
    both = {
        "a": {"adherence": figure(0.7, "more"), "distance": figure(3.0, "less")},
        "b": {"adherence": figure(0.8, "more"), "distance": figure(4.0, "less")},
    }
    rows = [of(steps=4, figures=both["a"]), of(steps=5, figures=both["b"])]
    assert decide(rows, Budget(rows=8), "adherence").chosen.plan.rows == 5
    assert decide(rows, Budget(rows=8), "distance").chosen.plan.rows == 4
    with pytest.raises(fs.InvalidInput, match="the figure 'psnr': there are adherence, distance"):
        decide(rows, Budget(rows=8), "psnr")


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(rows=3), "the least is 4 rows"),
        (Budget(ms=5), r"the least is 10 ms an image \(ddim on quadratic, 4 rows\)"),
        (Budget(quality=0.9999), r"the best quality is 0.9996 \(unipc-3 on quadratic, 16 rows\)"),
        (Budget(rows=8, quality=0.999), "the best quality within the rest of the budget is 0.9900"),
    ],
    ids=str,
)
def test_a_budget_that_nothing_meets_is_told_the_least(budget: Budget, message: str) -> None:
    with pytest.raises(fs.InvalidInput, match=message):
        decide(ROWS, budget)


def test_seconds_of_another_machine_are_not_used() -> None:
    foreign = replace(row("ddim", 4), seconds=UNKNOWN)
    assert decide([foreign], Budget(rows=4)).chosen is foreign
    with pytest.raises(fs.InvalidInput, match="nothing was timed on this machine with as many threads"):
        decide([foreign], Budget(ms=100))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give a budget"),
        ({"rows": 0}, "whole number of at least 1, got 0"),
        ({"rows": 4.0}, "got 4.0"),
        ({"ms": float("nan")}, "finite number above 0"),
        ({"ms": 0.0}, "finite number above 0"),
        ({"quality": 1.5}, "at most 1, got 1.5"),
        ({"quality": 0.0}, "above 0"),
        ({"rows": True}, "got True"),
        ({"nfe": 1.5}, "a budget of network evaluations is a whole number of at least 1, got 1.5"),
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
        decide([], Budget(rows=4))


def test_for_a_quality_candidates_that_have_only_an_error_are_compared_by_it() -> None:
    known = of("ddim", 4, 0.5)
    tuned = replace(of("unipc-3", 4, 0.1), figures={"error": figure(0.1)})
    assert decide([tuned], Budget(rows=4)).chosen is tuned
    assert decide([known, tuned], Budget(rows=4)).chosen is tuned
    assert decide([known, tuned], Budget(quality=0.5)).chosen is known
    with pytest.raises(fs.InvalidInput, match="'adherence': there are error; take one of these"):
        decide([tuned], Budget(rows=4), "adherence")
    with pytest.raises(fs.InvalidInput, match="'adherence': there are error; its prompts say nothing"):
        decide([tuned], Budget(rows=4), "adherence", "its prompts say nothing")


def test_rows_of_samplers_that_draw_noise_say_what_to_do() -> None:
    noisy = of("euler-a", 4, figures={"saturation": figure(0.1)})
    with pytest.raises(fs.InvalidInput, match="samplers that draw noise have none, so leave out --no-measure"):
        decide([noisy], Budget(rows=4))
