"""Figure 4: evaluations for equal error."""

import json

import pytest

import fewstep as fs
from fewstep.show.effort import effort
from fewstep.show.mixture import ring
from fewstep.show.strategy import Strategy, error, exact_from

SCHEDULE = fs.schedules.linear()
MIXTURE = ring(3, std=0.6)


def needs(*strategies, target=0.05, limit=200, **more):
    return effort(MIXTURE, SCHEDULE, strategies, target=target, limit=limit, count=4, **more)


@pytest.mark.parametrize("strategy", [Strategy("dpmpp-2m"), Strategy("euler", "karras"), Strategy("heun", "karras")])
def test_the_answer_meets_the_error_and_one_step_less_does_not(strategy):
    [need] = needs(strategy).needs
    assert need.steps is not None
    exact = exact_from(MIXTURE, SCHEDULE, 4, seed=0)
    plan = strategy.plan(SCHEDULE, need.steps)
    assert need.nfe == plan.nfe()
    assert need.error == pytest.approx(error(plan, exact), rel=1e-9)
    assert need.error <= 0.05 < error(strategy.plan(SCHEDULE, need.steps - 1), exact)


def test_a_smaller_error_needs_more_and_the_cheapest_comes_first():
    wide, narrow = (needs(Strategy("euler"), Strategy("unipc-2"), target=t) for t in (0.1, 0.04))
    for result in (wide, narrow):
        assert [need.strategy.sampler for need in result.needs] == ["unipc-2", "euler"]
    counts = [[need.nfe or 0 for need in result.needs] for result in (wide, narrow)]
    assert 0 < counts[0][0] < counts[1][0]
    assert 0 < counts[0][1] < counts[1][1]
    first, last = narrow.needs
    assert narrow.finding == (
        f"unipc-2, exponential comes within 0.04 of the exact solution in {first.nfe} evaluations; "
        f"euler, exponential needs {last.nfe}"
    )


def test_what_the_limit_does_not_allow_is_said_and_comes_last():
    result = needs(Strategy("euler"), Strategy("unipc-2"), target=0.02, limit=30)
    met, missed = result.needs
    assert (missed.strategy.sampler, missed.nfe, missed.steps) == ("euler", None, None)
    assert missed.error > 0.02 >= met.error
    assert result.finding.endswith("euler, exponential needs more than 30")
    assert needs(Strategy("euler"), target=1e-6, limit=8).finding.startswith("None comes within 1e-06")


def test_the_limit_itself_may_be_the_answer():
    [need] = needs(Strategy("euler")).needs
    assert need.nfe is not None
    assert needs(Strategy("euler"), limit=need.nfe).needs[0] == need
    assert needs(Strategy("euler"), limit=need.nfe - 1).needs[0].nfe is None


def test_document_and_table_hold_the_same_numbers():
    result = needs(Strategy("dpmpp-2m"), Strategy("euler"), limit=20)
    document = json.loads(json.dumps(result.document(), allow_nan=False))
    assert [[n["sampler"], n["grid"], n["nfe"], n["steps"], n["error"]] for n in document["needs"]] == result.table()[1]
    assert document["needs"][-1]["nfe"] is None


@pytest.mark.parametrize(
    ("strategy", "more", "message"),
    [
        (Strategy("ddpm"), {}, "draws noise"),
        (Strategy("euler"), {"target": 0.0}, "target must be a finite number above zero"),
        (Strategy("euler"), {"target": float("nan")}, "target must be a finite number above zero"),
        (Strategy("nothing"), {}, "unknown sampler"),
    ],
)
def test_what_has_no_answer_is_refused(strategy, more, message):
    with pytest.raises(fs.InvalidInput, match=message):
        needs(strategy, **more)
