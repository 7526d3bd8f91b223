"""What a budget asks for and the results lack."""

from pathlib import Path

import pytest

from benchmark.rows import MACHINE, row
from fewstep.benchmark.choice import Budget, Candidate, Results, lacking
from fewstep.benchmark.choice.candidate import of_run

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
        (Budget(ms=5), (2,)),
        (Budget(ms=7), (3,)),
        (Budget(nfe=8, ms=7), (3,)),
        (Budget(nfe=2, ms=7), (2,)),
        (Budget(ms=41), ()),
        (Budget(ms=42, nfe=20), ()),
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


def of(nfe: int, ms: float) -> Candidate:
    return of_run(row("ddim", nfe, 0.8 / nfe, ms / 1e3), Path("out"), MACHINE)


@pytest.mark.parametrize(
    ("ms", "rows", "counts"),
    [
        (4, [of(8, 8), of(12, 12), of(20, 10)], (4,)),  # one was lucky: the usual millisecond counts
        (3, [of(4, 4), of(3, 3.5)], (2,)),
        (3, [of(4, 4), of(3, 2.9)], ()),
        (3, [of(4, 20), of(8, 8)], (1,)),  # some say that one evaluation fits
        (30, [of(20, 20), of(28, 29)], ()),  # so near that more is not worth the time
    ],
)
def test_the_evaluations_that_should_fit_are_fewer_than_are_too_slow(
    ms: float, rows: list[Candidate], counts: tuple[int, ...]
) -> None:
    need = lacking(Results(rows), Budget(ms=ms), "quality")
    assert (() if need is None else need.nfe) == counts


def test_rows_of_other_threads_lack_their_milliseconds_here() -> None:
    rows = [of_run(row("ddim", 8), Path("out"), MACHINE._replace(threads=4))]
    assert lacking(Results(rows), Budget(nfe=8), "quality") is None
    for budget, counts in ((Budget(ms=50), (4, 8, 12, 20)), (Budget(nfe=8, ms=50), (8,))):
        need = lacking(Results(rows), budget, "quality")
        assert need is not None
        assert need.nfe == counts
        assert need.why.endswith("on this machine with as many threads")
