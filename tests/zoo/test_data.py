"""The digits, the split, and image sets that are refused."""

from __future__ import annotations

import sys

import pytest
import torch

from fewstep.core.errors import InvalidInput
from fewstep.zoo import digits
from fewstep.zoo.dataset import ImageSet


def test_the_digits_are_scaled_from_16_levels_to_minus_one_to_one() -> None:
    data = digits.load()
    assert data.images.shape == (1797, 1, 8, 8)
    assert data.images.unique().tolist() == [level / 8 - 1 for level in range(17)]
    assert data.labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InvalidInput, match=r"pip install 'fewstep\[train\]'"):
        digits.load()


def test_the_split_is_seeded_complete_and_even_over_classes() -> None:
    data = digits.load()
    kept, held = data.split(0.1, 0)
    assert (len(kept), len(held)) == (1618, 179)
    assert held.labels.bincount().tolist() == [18] * 8 + [17, 18]
    both = torch.cat([kept.images, held.images]).flatten(1)
    assert torch.equal(both.sum(0), data.images.flatten(1).sum(0))
    assert torch.equal(held.images, data.split(0.1, 0)[1].images)
    assert not torch.equal(held.images, data.split(0.1, 1)[1].images)


def test_the_digest_sees_one_pixel_and_one_label() -> None:
    images, labels = torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 0, 1])
    base = ImageSet("a", images, labels, 2).digest
    assert base == ImageSet("b", images.clone(), labels.clone(), 2).digest
    assert base != ImageSet("a", images.index_fill(0, torch.tensor([1]), 0.5), labels, 2).digest
    assert base != ImageSet("a", images, labels.flip(0), 2).digest


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 1, 4, 4).double(), torch.zeros(2).long(), "give float32"),
        (torch.zeros(2, 4, 4), torch.zeros(2).long(), "give float32"),
        (torch.zeros(2, 1, 4, 5), torch.zeros(2).long(), "give float32"),
        (torch.zeros(0, 1, 4, 4), torch.zeros(0).long(), "N at least 1"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(3).long(), r"give int64 of \(2,\)"),
        (torch.zeros(2, 1, 4, 4), torch.tensor([0, 2]), "labels of 'a' go from 0 to 2; allowed are 0 to 1"),
        (torch.full((2, 1, 4, 4), 255.0), torch.zeros(2).long(), "scale them to -1 .. 1"),
        (torch.full((2, 1, 4, 4), float("nan")), torch.zeros(2).long(), "without NaN"),
    ],
)
def test_images_that_do_not_fit_are_refused(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        ImageSet("a", images, labels, 2)


@pytest.mark.parametrize(("fraction", "message"), [(0.0, "between 0 and 1"), (0.01, "leaves one part empty")])
def test_a_split_that_leaves_a_part_empty_is_refused(fraction: float, message: str) -> None:
    data = ImageSet("a", torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 0, 1]), 2)
    with pytest.raises(InvalidInput, match=message):
        data.split(fraction, 0)
