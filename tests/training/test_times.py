"""Times of a training have the distributions that they are named for, between the ends of the schedule."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

import fewstep as fs
from fewstep import schedules
from fewstep.training.times import Distribution, distribution

SHARE = (np.arange(2000) + 0.5) / 2000


def network(schedule: fs.schedules.Schedule, prediction: str = "v_prediction", **options: object) -> fs.Network:
    return fs.Network(lambda x, t: x, schedule, prediction, **options)  # type: ignore[arg-type]


def cut(law: object, low: float, high: float) -> np.ndarray:
    """Quantiles of a scipy.stats distribution between two ends."""
    ends = law.cdf([low, high])  # type: ignore[attr-defined]
    return law.ppf(ends[0] + (ends[1] - ends[0]) * SHARE)  # type: ignore[attr-defined]


@pytest.mark.parametrize("schedule", [schedules.linear(), schedules.cosine(zero_snr=True), schedules.edm(5.0, 0.3)])
def test_the_log_of_the_ratio_is_normal_or_logistic_within_the_schedule(schedule: fs.schedules.Schedule) -> None:
    with np.errstate(divide="ignore"):
        ends = np.log(schedule.ratio([schedule.t_min, schedule.t_max]))
    for name, law in (
        ("log-normal", stats.norm(-1.2, 1.2)),
        ("logistic", stats.logistic(-1.2, 1.2 * math.sqrt(3) / math.pi)),
    ):
        found = Distribution(name, -1.2, 1.2).at(network(schedule), SHARE)
        assert np.log(schedule.ratio(found)) == pytest.approx(cut(law, *ends), abs=1e-8)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_time_of_a_flow_is_logit_normal_and_shifted(shift: float) -> None:
    schedule = schedules.flow(shift)
    found = Distribution("logit-normal", -0.5, 0.8).at(network(schedule, "flow"), SHARE)
    before = found / (shift - (shift - 1) * found)
    law = stats.norm(-0.5, 0.8)
    low = schedule.t_min / (shift - (shift - 1) * schedule.t_min)
    assert np.log(before / (1 - before)) == pytest.approx(cut(law, math.log(low / (1 - low)), np.inf), abs=1e-9)


def test_uniform_times_are_uniform_and_those_of_a_flow_shifted() -> None:
    beta = schedules.linear()
    assert Distribution("uniform").at(network(beta), SHARE) == pytest.approx(999 * SHARE)
    flow = schedules.flow(3.0, t_min=0.3)
    found = Distribution("uniform").at(network(flow, "flow"), np.array([0.0, 0.5, 1.0]))
    first = 0.3 / (3 - 2 * 0.3)
    middle = (1 + first) / 2
    assert found == pytest.approx([0.3, 3 * middle / (1 + 2 * middle), 1.0])


def test_a_network_that_is_told_whole_numbers_gets_each_as_often() -> None:
    found = Distribution("uniform").at(network(schedules.linear(), integer_time=True), SHARE)
    assert np.array_equal(np.bincount(found.astype(int)), np.full(1000, 2))
    assert np.array_equal(found, np.rint(found))


@pytest.mark.parametrize(
    ("prediction", "schedule", "wanted"),
    [
        ("epsilon", schedules.linear(), Distribution("uniform")),
        ("flow", schedules.flow(), Distribution("logit-normal", 0.0, 1.0)),
        ("edm", schedules.linear(), Distribution("log-normal", -1.2, 1.2)),
        ("sample", schedules.edm(), Distribution("log-normal", -1.2, 1.2)),
    ],
)
def test_the_usual_times_suit_the_network(
    prediction: str, schedule: fs.schedules.Schedule, wanted: Distribution
) -> None:
    assert distribution(None, None, None, network(schedule, prediction)) == wanted
