"""Precision, recall, density and coverage: by hand, at their extremes, and what each is blind to."""

import numpy as np
import pytest
import torch

from fewstep.core.errors import InvalidInput
from fewstep.measure import pairs
from fewstep.measure.figure import Bootstrap
from fewstep.measure.neighbours import density_coverage, precision_recall, radii

from .sets import gaussian, summed


def by_hand(x, y, k):
    """The four figures, row by row."""
    x, y = x.numpy(), y.numpy()

    def ball(points, i):
        return sorted(np.linalg.norm(points - points[i], axis=1))[k]  # the first is the point itself

    near = np.linalg.norm(x[:, None] - y[None], axis=2)
    in_real = np.array([[near[i, j] <= ball(y, j) for j in range(len(y))] for i in range(len(x))])
    in_drawn = np.array([[near[i, j] <= ball(x, i) for j in range(len(y))] for i in range(len(x))])
    return in_real.any(1).mean(), in_drawn.any(0).mean(), in_real.sum() / (k * len(x)), in_real.any(0).mean()


def four(x, y, k):
    x, y = summed(x), summed(y)
    return [f.value for f in (*precision_recall(x, y, k=k), *density_coverage(x, y, k=k))]


@pytest.mark.parametrize("tile", [11, 2048])
@pytest.mark.parametrize("k", [1, 4])
def test_they_are_what_counting_gives_whatever_the_tiles(k, tile, monkeypatch):
    monkeypatch.setattr(pairs, "TILE", tile)
    x, y = gaussian(40, 3, 0, 1.3, 0.5), gaussian(55, 3, 1)
    got = four(x, y, k)
    assert got == pytest.approx(by_hand(x, y, k), abs=1e-12)
    assert all(0.1 < value < 0.999 for value in got)


@pytest.mark.parametrize("offset", [3.0, 1e4])
@pytest.mark.parametrize("tile", [17, 2048])
def test_copies_are_as_near_as_what_they_copy(tile, offset, monkeypatch):
    monkeypatch.setattr(pairs, "TILE", tile)
    rows = torch.cat([gaussian(60, 4, 7, shift=offset)] * 2)
    assert four(rows, rows, 5) == pytest.approx(by_hand(rows, rows, 5), abs=1e-12)
    assert four(rows, rows, 5)[2] == pytest.approx(1.2, abs=1e-12)  # the fifth neighbour has a copy


def test_the_radius_of_a_row_leaves_the_row_itself_out():
    x = torch.tensor([[0.0], [1.0], [3.0], [10.0]], dtype=torch.float64)
    assert radii(x, 1).tolist() == [1, 1, 2, 7]
    assert radii(x, 2).tolist() == [3, 2, 3, 9]


def test_far_images_have_nothing_and_equal_distributions_nearly_all():
    y = gaussian(300, 4, 1)
    assert four(gaussian(300, 4, 0, shift=50.0), y, 3) == [0, 0, 0, 0]
    precision, recall, density, coverage = four(gaussian(300, 4, 0), y, 5)
    assert min(precision, recall) > 0.9
    assert density == pytest.approx(1.0, abs=0.15)
    assert coverage == pytest.approx(1 - 0.5**5, abs=0.05)  # Naeem et al. 2020, lemma 2, for sets of one size


def test_a_collapsed_generator_is_precise_and_covers_nothing():
    y = gaussian(300, 4, 1)
    precision, recall, _, coverage = four(gaussian(300, 4, 0, 0.01), y, 3)
    assert precision == 1
    assert max(recall, coverage) < 0.1


def test_outliers_of_the_generator_raise_recall_and_not_coverage():
    y = gaussian(200, 3, 1)
    collapsed = gaussian(200, 3, 0, 0.05)
    axes = 40 * torch.eye(3, dtype=torch.float64)
    far = torch.cat([collapsed, axes, -axes])  # balls of radius 40, which reach to the middle
    assert four(far, y, 3)[1] - four(collapsed, y, 3)[1] > 0.5
    assert four(far, y, 3)[3] == pytest.approx(four(collapsed, y, 3)[3])


def test_their_interval_is_that_of_a_share():
    x, y = summed(gaussian(400, 3, 0, 1.3, 0.5)), summed(gaussian(400, 3, 1))
    precision = precision_recall(x, y, bootstrap=Bootstrap(4000)).precision
    expected = 2 * 1.96 * (precision.value * (1 - precision.value) / 400) ** 0.5
    assert precision.high - precision.low == pytest.approx(expected, rel=0.1)
    assert (precision.settings, precision.better, precision.n) == ("k=3", "more", 400)


def test_too_few_images_and_impossible_k_are_refused():
    x, y = summed(gaussian(3, 3, 0)), summed(gaussian(50, 3, 1))
    with pytest.raises(InvalidInput, match="3 generated images are too few: a 3-th nearest neighbour needs at least 4"):
        precision_recall(x, y)
    with pytest.raises(InvalidInput, match="k must be a whole number from 1 to 100, got 0"):
        density_coverage(y, y, k=0)
    with pytest.raises(InvalidInput, match="keep 4 and 50 images, more than k = 5"):
        density_coverage(summed(gaussian(50, 3, 0), keep=4), y)
