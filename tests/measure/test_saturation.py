"""Saturation figures of images made by hand."""

import math

import pytest
import torch

import fewstep as fs


def image(*colours):
    """One row of pixels, (1, 3, 1, n)."""
    return torch.tensor(colours).T.reshape(1, 3, 1, -1)


def test_the_share_counts_pixels_at_or_beyond_the_range_in_some_channel():
    x = image([0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, -1.5, 2.0], [0.99, -0.99, 0.0])
    assert fs.saturation(x).share.tolist() == [0.5]
    assert fs.saturation(x, margin=0.01).share.tolist() == [0.75]
    assert fs.saturation((x + 1) / 2, 0.0, 1.0).share.tolist() == [0.5]


def test_chroma_is_the_spread_of_the_channels_and_0_for_greys():
    greys, red, faint = image([0.3] * 3, [-1.0] * 3), image([1.0, -1.0, -1.0]), image([0.25, 0.0, -0.25])
    assert fs.saturation(greys).chroma.tolist() == [0.0]
    assert fs.saturation(red).chroma.tolist() == [1.0]
    assert fs.saturation(faint).chroma.tolist() == [0.25]
    assert fs.saturation(3 * red).chroma.tolist() == [1.0]  # beyond the range is the range's end


def test_each_image_has_its_own_figures_and_channels_may_be_one_or_many():
    both = torch.cat([image([0.0] * 3, [0.5, 0.0, 0.0]), image([2.0] * 3, [1.0, -1.0, 0.0])])
    got = fs.saturation(both)
    assert (got.share.tolist(), got.chroma.tolist()) == ([0.0, 1.0], [0.125, 0.5])
    grey = fs.saturation(torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2))
    assert (grey.share.tolist(), grey.chroma.tolist()) == ([0.5], [0.0])
    assert fs.saturation(torch.zeros(2, 4, 3, 3, dtype=torch.float16)).share.dtype == torch.float64


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (torch.zeros(3, 4, 4), {}, "batch, channels, height, width"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), {}, "floating point tensors"),
        (torch.zeros(0, 3, 4, 4), {}, "batch, channels, height, width"),
        (torch.zeros(1, 3, 4, 4), {"low": 1.0, "high": 0.0}, "low < high"),
        (torch.zeros(1, 3, 4, 4), {"margin": 0.5}, "margin in"),
        (torch.zeros(1, 3, 4, 4), {"margin": math.nan}, "margin in"),
        (torch.full((1, 3, 4, 4), math.nan), {}, "NaN or infinity"),
    ],
)
def test_what_is_no_image_is_refused(images, options, message):
    with pytest.raises(fs.InvalidInput, match=message):
        fs.saturation(images, **options)
