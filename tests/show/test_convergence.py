"""Figure 2: fitted orders against the theory's."""

import json

import pytest

import fewstep as fs
from fewstep.show.convergence import convergence, fitted_order
from fewstep.show.mixture import ring
from fewstep.show.strategy import Strategy

SCHEDULE = fs.schedules.linear()


def measured(*strategies, nfes=(128, 192, 256), **more):
    return convergence(ring(3, std=0.6), SCHEDULE, strategies, nfes=nfes, count=4, **more)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp-2m", "dpmpp-3m", "unipc-2"])
def test_the_fitted_order_is_the_theory_s(sampler):
    [curve] = measured(Strategy(sampler)).curves
    assert curve.fitted == pytest.approx(fs.SAMPLERS[sampler].order, abs=0.2)
    assert list(curve.errors) == sorted(curve.errors, reverse=True)


def test_the_fourth_order_shows_later():
    [curve] = measured(Strategy("unipc-3"), nfes=(256, 384, 512)).curves
    assert curve.fitted == pytest.approx(4, abs=0.3)


def test_the_exact_solution_is_far_below_what_is_measured():
    found = measured(Strategy("unipc-3"), nfes=(64, 128))
    assert found.floor < 1e-9 < found.curves[0].errors[-1] / 100


def test_the_same_seed_gives_the_same_numbers_and_another_gives_others():
    first, again, other = (measured(Strategy("euler"), nfes=(8, 16), seed=s) for s in (1, 1, 2))
    assert first.curves == again.curves
    assert first.curves != other.curves


def test_two_stage_methods_are_counted_in_evaluations():
    [curve] = measured(Strategy("heun"), nfes=(9, 10, 11)).curves
    assert list(curve.nfe) == [8, 10]


def test_every_run_is_announced():
    seen = []
    measured(Strategy("euler"), Strategy("heun"), nfes=(8, 16), on_run=lambda done, of: seen.append((done, of)))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_the_finding_compares_best_and_worst_at_one_count():
    found = measured(Strategy("euler"), Strategy("dpmpp-2m"), nfes=(16, 32, 64))
    ratio = found.curves[0].errors[1] / found.curves[1].errors[1]
    assert found.finding.startswith("At 32 evaluations dpmpp-2m is ")
    said = float(found.finding.split("is ")[1].split(" times")[0])
    assert said == pytest.approx(ratio, rel=0.06)


def test_document_and_table_hold_the_same_numbers():
    found = measured(Strategy("euler"), Strategy("dpmpp-3m", options={"curvature": "exact"}), nfes=(8, 16))
    curves = json.loads(json.dumps(found.document(), allow_nan=False))["curves"]
    assert [c["order"] for c in curves] == [1, None]
    columns, rows = found.table()
    assert columns == ["sampler", "grid", "nfe", "error", "fitted_order"]
    assert [row[3] for row in rows] == [e for c in curves for e in c["error"]]


def test_the_fit_takes_the_last_points_above_the_floor():
    nfe = [1, 2, 4, 8, 16, 32]
    errors = [9.0, 1.0, 1 / 8, 1 / 64, 1 / 512, 1 / 512]
    assert fitted_order(nfe, errors, floor=1 / 500) == pytest.approx(3)
    assert fitted_order(nfe, errors, floor=0.5) == pytest.approx(3.17, abs=0.01)
    assert fitted_order(nfe, errors, floor=2.0) is None


@pytest.mark.parametrize(
    ("strategy", "nfes", "message"),
    [
        (Strategy("euler"), (), "must increase"),
        (Strategy("euler"), (8, 8), "must increase"),
        (Strategy("euler"), (0, 8), "from 1 or more"),
        (Strategy("euler-a"), (8, 16), "draws noise"),
        (Strategy("dpmpp-3s"), (1, 2), "dpmpp-3s needs more than 2 evaluations"),
        (Strategy("eulr"), (8, 16), "did you mean 'euler'"),
    ],
)
def test_what_cannot_be_measured_is_refused(strategy, nfes, message):
    with pytest.raises(fs.InvalidInput, match=message):
        measured(strategy, nfes=nfes)
