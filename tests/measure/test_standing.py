"""Which figures are as good as the best."""

import pytest
import torch

from fewstep.core.errors import InvalidInput
from fewstep.measure import mean_score
from fewstep.measure.figure import Bootstrap
from fewstep.measure.standing import advantage, always_better, standing


def scores(*means, n=64, seed=0, noise=0.02):
    """Scores of the same images, which differ much, under ways that differ by little but for their means."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(n, dtype=torch.float64, generator=draw)
    return [mean + images + noise * torch.randn(n, dtype=torch.float64, generator=draw) for mean in means]


@pytest.mark.parametrize("better", ["more", "less"])
def test_a_small_difference_on_the_same_images_is_sure_where_the_intervals_overlap(better):
    sign = 1 if better == "more" else -1
    figures = [mean_score("m", sign * each, better=better) for each in scores(0.0, 0.1, 0.1)]
    assert figures[0].high - figures[0].low > 0.4  # of one scale alone
    found = standing(figures)
    assert found.best in (1, 2)
    assert found.as_good == (1, 2)
    assert found.behind[0].value == pytest.approx(0.1, abs=0.01)
    assert 0.08 < found.behind[0].low < found.behind[0].high < 0.12
    assert advantage(figures[found.best], figures[0]) == found.behind[0]
    assert always_better(figures[1], figures[0])
    assert not always_better(figures[0], figures[1])


def test_the_first_of_equal_ones_is_the_best():
    figures = [mean_score("m", each) for each in (torch.ones(8), torch.ones(8), torch.zeros(8))]
    found = standing(figures)
    assert (found.best, found.as_good) == (0, (0, 1))
    assert found.behind[1].value == found.behind[1].low == found.behind[1].high == 0


def test_the_best_way_is_among_those_that_are_as_good_as_often_as_the_interval_says():
    """In 200 draws of 32 images; the intervals are of 95%, and the best of three is looked for."""
    right = 0
    for seed in range(200):
        figures = [
            mean_score("m", each, bootstrap=Bootstrap(200)) for each in scores(0, 0.15, 0.2, n=32, seed=seed, noise=0.5)
        ]
        right += 2 in standing(figures).as_good
    assert right / 200 >= 0.93


def test_nothing_has_no_best_one():
    with pytest.raises(InvalidInput, match="there is no figure to find the best of"):
        standing([])
