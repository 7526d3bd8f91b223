"""What a budget asks for and the results lack."""

from pathlib import Path

import pytest

from bench.rows import MACHINE, row
from fewstep.choose import Budget, Results, lacking
from fewstep.choose.candidate import of_run

ROWS = [of_run(row("ddim", n, 0.8 / n, 0.002 * n), Path("out"), MACHINE) for n in (4, 8, 20)]


@pytest.mark.parametrize(
    ("budget", "counts"),
    [
        (Budget(nfe=8), ()),
        (Budget(nfe=6), (6,)),
        (Budget(nfe=300), (50,)),
        (Budget(ms=16), ()),
        (Budget(ms=25), (12,)),
        (Budget(ms=1000), (50,)),
        (Budget(ms=1), ()),  # not one evaluation fits
        (Budget(quality=0.9), ()),
        (Budget(quality=0.999), (30, 50)),
    ],
    ids=str,
)
def test_only_what_is_not_there_is_measured(budget: Budget, counts: tuple[int, ...]) -> None:
    need = lacking(Results(ROWS), budget, "quality")
    assert (() if need is None else need.nfe) == counts
    if need is not None:
        assert need.sweep(2.0, False).nfe == counts


@pytest.mark.parametrize(("budget", "counts"), [(Budget(nfe=6), (6,)), (Budget(ms=9), (4, 8, 12, 20))], ids=str)
def test_without_any_row_a_few_counts_are_measured(budget: Budget, counts: tuple[int, ...]) -> None:
    need = lacking(Results(), budget, "quality")
    assert need is not None
    assert need.nfe == counts


def test_a_figure_that_no_row_has_and_a_plan_without_a_row_are_missing() -> None:
    assert lacking(Results(ROWS), Budget(nfe=8), "adherence") is not None
    need = lacking(Results(ROWS, unmeasured=[Path("p.json")]), Budget(nfe=8), "quality")
    assert need is not None
    assert (need.nfe, need.plans) == ((8,), (Path("p.json"),))
    assert "p.json is not measured on the same noise" in need.why
