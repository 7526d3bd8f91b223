"""The field's table: every budget has its line, and what it proposes can be compiled within it."""

import pytest

import fewstep as fs
from fewstep.benchmark.choice import ADVICE, advice_for
from fewstep.tuning.rivals import fitting


def test_the_lines_meet_without_a_gap_and_the_last_has_no_end() -> None:
    assert ADVICE[0].least == 1
    assert [line.most for line in ADVICE[:-1]] == [line.least - 1 for line in ADVICE[1:]]
    assert ADVICE[-1].most is None


@pytest.mark.parametrize(
    ("nfe", "first", "distilled"),
    [(1, "ddim", "consistency"), (4, "ddim", "lcm"), (5, "dpmpp-2m", ""), (15, "dpmpp-2m", ""), (30, "edm", "")],
)
def test_a_budget_has_the_samplers_of_the_field(nfe: int, first: str, distilled: str) -> None:
    line = advice_for(nfe)
    assert line.others[0] == first
    assert line.distilled.startswith(distilled)
    assert bool(line.distilled) == (nfe < 5)


@pytest.mark.parametrize("nfe", [1, 2, 4, 5, 14, 15, 30, 51])
def test_what_is_proposed_fits_the_budget(nfe: int) -> None:
    line = advice_for(nfe)
    plan = next(fitting(line.others[0], fs.schedules.linear(), nfe, grid=line.grid, **line.options))
    assert nfe - 1 <= plan.nfe <= nfe


def test_no_evaluations_are_no_budget() -> None:
    with pytest.raises(fs.InvalidInput, match="at least 1, got 0"):
        advice_for(0)
