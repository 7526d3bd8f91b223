"""Masks from outside: white is what is repainted."""

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep import InvalidInput
from fewstep.pipeline import read_mask


def test_a_mask_is_its_lighter_half() -> None:
    image = Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8))
    assert read_mask(image, (1, 4)).tolist() == [[[[0, 0, 1, 1]]]]
    assert read_mask(torch.tensor([[0.4, 0.5]]), (1, 2)).tolist() == [[[[0, 1]]]]
    with pytest.raises(InvalidInput, match="dark everywhere"):
        read_mask(Image.new("L", (2, 2)), (2, 2))
    with pytest.raises(InvalidInput, match="must have shape"):
        read_mask(torch.ones(3, 2, 2), (2, 2))


def test_a_mask_of_another_size_is_fitted_as_its_picture_is() -> None:
    image = Image.new("L", (8, 4))
    image.paste(255, (2, 0, 6, 4))
    assert read_mask(image, (4, 4), "crop").min() == 1
    assert read_mask(image, (4, 4), "stretch").tolist() == [[[[0, 1, 1, 0]] * 4]]
    with pytest.raises(InvalidInput, match="8 x 4 pixels and 4 x 4 are needed"):
        read_mask(image, (4, 4), "exact")
    with pytest.raises(InvalidInput, match="fit must be one of"):
        read_mask(image, (4, 4), "cover")
