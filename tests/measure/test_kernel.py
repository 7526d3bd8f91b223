"""The kernel distance: its formula, no bias, its interval; and diversity, which shares its sums over pairs."""

import math

import numpy as np
import pytest
import torch

from fewstep.core.errors import InvalidInput
from fewstep.measure import pairs
from fewstep.measure.figure import resampling
from fewstep.measure.kernel import kernel_distance
from fewstep.measure.spread import diversity

from .sets import gaussian, summed


def by_hand(x, y):
    """The unbiased estimator, written out."""
    x, y, d = x.numpy(), y.numpy(), x.shape[1]
    xx, yy, xy = ((a @ b.T / d + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    n, m = len(x), len(y)
    return (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1)) - 2 * xy.mean()


@pytest.mark.parametrize("tile", [7, 2048])
def test_it_is_the_unbiased_estimator_whatever_the_tiles(tile, monkeypatch):
    monkeypatch.setattr(pairs, "TILE", tile)
    x, y = gaussian(60, 12, 0), gaussian(83, 12, 1, 1.2, 0.1)
    assert kernel_distance(summed(x), summed(y)).value == pytest.approx(by_hand(x, y), rel=1e-12)


def test_equal_distributions_give_zero_on_average_at_any_size():
    real = gaussian(400, 8, 999)
    for n in (20, 200):
        values = [by_hand(gaussian(n, 8, seed), gaussian(n, 8, 500 + seed)) for seed in range(40)]
        mean, error = np.mean(values), np.std(values) / 40**0.5
        assert abs(mean) < 3 * error
    assert kernel_distance(summed(gaussian(200, 8, 3, 1.5)), summed(real)).low > 0


def test_the_interval_is_as_wide_as_the_figure_varies_from_draw_to_draw():
    real = summed(gaussian(2000, 8, 99))
    figures = [kernel_distance(summed(gaussian(200, 8, seed, 1.2, 0.1)), real) for seed in range(60)]
    spread = np.std([f.value for f in figures])
    widths = np.array([f.high - f.low for f in figures]) / (2 * 1.96)
    assert 0.75 < widths.mean() / spread < 1.3


def test_subsets_estimate_the_same_with_more_spread():
    x, y = summed(gaussian(300, 8, 0, 1.3)), summed(gaussian(300, 8, 1))
    whole, blocks = kernel_distance(x, y), kernel_distance(x, y, subset_size=100, subsets=50)
    assert blocks.settings == "subset_size=100 subsets=50"
    assert blocks.value == pytest.approx(whole.value, rel=0.25)
    with pytest.raises(InvalidInput, match="2 to 300 images"):
        kernel_distance(x, y, subset_size=301)
    with pytest.raises(InvalidInput, match="1 generated images are too few"):
        kernel_distance(summed(gaussian(1, 8, 0)), y)


def test_diversity_is_the_mean_distance_of_two_different_images():
    x = gaussian(50, 6, 0)
    figure = diversity(summed(x))
    assert figure.value == pytest.approx(float(torch.pdist(x).mean()), rel=1e-12)
    assert figure.low < figure.value < figure.high
    assert diversity(summed(torch.ones(5, 3))).value == 0
    assert (figure.better, figure.reference) == ("more", "")
    wider = diversity(summed(2 * x))
    assert wider.value == pytest.approx(2 * figure.value)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_bootstrap_of_very_few_images_leaves_out_what_has_no_pair(n):
    all_of_them = resampling(n, 2000, 0)
    kept = all_of_them[(all_of_them > 0).sum(dim=1) > 1]
    assert len(kept) < 2000
    assert torch.equal(resampling(n, 500, 0, different=2), kept[:500])
    x = gaussian(n, 4, 0)
    found, near = diversity(summed(x)), torch.pdist(x)
    assert near.min() <= found.low <= found.value <= found.high <= near.max()
    assert math.isfinite(kernel_distance(summed(x), summed(gaussian(50, 4, 1))).high)


def test_the_interval_of_diversity_is_as_wide_as_it_varies():
    figures = [diversity(summed(gaussian(60, 6, seed))) for seed in range(60)]
    widths = np.array([f.high - f.low for f in figures]) / (2 * 1.96)
    assert 0.75 < widths.mean() / np.std([f.value for f in figures]) < 1.3
