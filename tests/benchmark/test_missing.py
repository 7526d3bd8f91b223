"""What a budget asks for and the results lack."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.made_up import row
from fewstep.benchmark import Budget, Measured
from fewstep.benchmark.findings import Findings
from fewstep.benchmark.measured import UNKNOWN
from fewstep.benchmark.missing import missing

ROWS = [row("ddim", n, 0.8 / n, 0.002 * n) for n in (4, 8, 20)]


@pytest.mark.parametrize(
    ("budget", "counts"),
    [
        (Budget(rows=8), ()),
        (Budget(rows=6), (6,)),
        (Budget(rows=300), (50,)),
        (Budget(nfe=16), ()),
        (Budget(nfe=13), (6,)),
        (Budget(nfe=1), (1,)),
        (Budget(rows=8, nfe=8), ()),
        (Budget(ms=16), ()),
        (Budget(ms=25), (12,)),
        (Budget(ms=1000), (50,)),
        (Budget(ms=1), ()),  # not one row fits
        (Budget(ms=5), (2,)),
        (Budget(ms=7), (3,)),
        (Budget(rows=8, ms=7), (3,)),
        (Budget(rows=2, ms=7), (2,)),
        (Budget(ms=41), ()),
        (Budget(ms=42, rows=20), ()),
        (Budget(quality=0.9), ()),
        (Budget(quality=0.999), (30, 50)),
    ],
    ids=str,
)
def test_only_what_is_not_there_is_measured(budget: Budget, counts: tuple[int, ...]) -> None:
    need = missing(Findings(ROWS), budget, "quality", cost=2)
    assert (() if need is None else need.rows) == counts
    if need is not None:
        assert need.sweep(2.0, False).rows == counts


@pytest.mark.parametrize(("budget", "counts"), [(Budget(rows=6), (6,)), (Budget(ms=9), (4, 8, 12, 20))], ids=str)
def test_without_any_row_a_few_counts_are_measured(budget: Budget, counts: tuple[int, ...]) -> None:
    need = missing(Findings(), budget, "quality")
    assert need is not None
    assert need.rows == counts


def test_a_figure_that_no_row_has_and_a_plan_without_a_row_are_missing() -> None:
    assert missing(Findings(ROWS), Budget(rows=8), "adherence") is not None
    need = missing(Findings(ROWS, unmeasured=[Path("p.json")]), Budget(rows=8), "quality")
    assert need is not None
    assert (need.rows, need.plans) == ((8,), (Path("p.json"),))
    assert "p.json is not measured on the same noise" in need.why


def of(rows: int, ms: float) -> Measured:
    return row("ddim", rows, 0.8 / rows, ms / 1e3)


@pytest.mark.parametrize(
    ("ms", "rows", "counts"),
    [
        (4, [of(8, 8), of(12, 12), of(20, 10)], (4,)),  # one was lucky: the usual millisecond counts
        (3, [of(4, 4), of(3, 3.5)], (2,)),
        (3, [of(4, 4), of(3, 2.9)], ()),
        (3, [of(4, 20), of(8, 8)], (1,)),  # some say that one row fits
        (30, [of(20, 20), of(28, 29)], ()),  # so near that more is not worth the time
    ],
)
def test_the_rows_that_should_fit_are_fewer_than_are_too_slow(
    ms: float, rows: list[Measured], counts: tuple[int, ...]
) -> None:
    need = missing(Findings(rows), Budget(ms=ms), "quality")
    assert (() if need is None else need.rows) == counts


def test_rows_of_other_threads_lack_their_milliseconds_here() -> None:
    rows = [replace(row("ddim", 8), seconds=UNKNOWN)]
    assert missing(Findings(rows), Budget(rows=8), "quality") is None
    for budget, counts in ((Budget(ms=50), (4, 8, 12, 20)), (Budget(rows=8, ms=50), (8,))):
        need = missing(Findings(rows), budget, "quality")
        assert need is not None
        assert need.rows == counts
        assert need.why.endswith("on this machine with as many threads")
