"""The field's table: every budget has its line, and what it proposes can be compiled within it."""

import pytest

import fewstep as fs
from fewstep.benchmark import ADVICE, advice_for
from fewstep.tuning.rivals import fitting


def test_the_lines_meet_without_a_gap_and_the_last_has_no_end() -> None:
    assert ADVICE[0].least == 1
    assert [line.most for line in ADVICE[:-1]] == [line.least - 1 for line in ADVICE[1:]]
    assert ADVICE[-1].most is None


@pytest.mark.parametrize(
    ("rows", "first", "distilled"),
    [(1, "ddim", "consistency"), (4, "ddim", "lcm"), (5, "dpmpp-2m", ""), (15, "dpmpp-2m", ""), (30, "edm", "")],
)
def test_a_budget_has_the_samplers_of_the_field(rows: int, first: str, distilled: str) -> None:
    line = advice_for(rows)
    assert line.others[0] == first
    assert line.distilled.startswith(distilled)
    assert bool(line.distilled) == (rows < 5)


@pytest.mark.parametrize("rows", [1, 2, 4, 5, 14, 15, 30, 51])
def test_what_is_proposed_fits_the_budget(rows: int) -> None:
    line = advice_for(rows)
    plan = next(fitting(line.others[0], fs.schedules.linear(), rows, grid=line.grid, **line.options))
    assert rows - 1 <= len(plan.rows) <= rows


def test_no_rows_are_no_plan() -> None:
    with pytest.raises(fs.InvalidInput, match="at least 1 row, the budget allows 0"):
        advice_for(0)
