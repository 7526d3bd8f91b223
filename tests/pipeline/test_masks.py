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


def square(height: int, width: int, left: int, right: int) -> Image.Image:
    """White between two columns."""
    array = np.zeros((height, width), np.uint8)
    array[:, left:right] = 255
    return Image.fromarray(array)


def layer(colour: int, kind: str) -> Image.Image:
    """A layer of 16 x 16 that is transparent but for 4 x 4 pixels of a grey."""
    array = np.zeros((16, 16, 4), np.uint8)
    array[4:8, 4:8] = (colour, colour, colour, 255)
    return Image.fromarray(array).convert(kind)


@pytest.mark.parametrize("kind", ["RGBA", "LA", "RGBa"])
def test_what_is_transparent_is_not_painted(kind: str) -> None:
    mask = read_mask(layer(255, kind), (16, 16))
    assert float(mask.sum()) == 16
    assert float(mask[..., 4:8, 4:8].sum()) == 16
    with pytest.raises(InvalidInput, match="dark everywhere"):
        read_mask(layer(0, kind), (16, 16))


def test_half_transparent_white_is_painted_from_the_half_on() -> None:
    array = np.full((1, 4, 4), 255, np.uint8)
    array[0, :, 3] = [0, 127, 128, 255]
    assert read_mask(array, (1, 4)).tolist() == [[[[0, 0, 1, 1]]]]


def test_an_array_is_a_mask() -> None:
    wanted = [[[[0, 1, 1]]]]
    for array in (
        np.array([[False, True, True]]),
        np.array([[0, 255, 200]], np.uint8),
        np.array([[0.0, 1.0, 0.6]]),
        np.array([[[0], [255], [200]]], np.uint8),
    ):
        assert read_mask(array, (1, 3)).tolist() == wanted


def test_a_mask_of_the_same_proportions_is_laid_over_its_picture_first() -> None:
    picture = (16, 32)
    whole = read_mask(square(16, 32, 8, 24), (8, 8), of=picture)
    for scale in (2, 4):
        again = read_mask(square(16 * scale, 32 * scale, 8 * scale, 24 * scale), (8, 8), of=picture)
        assert torch.equal(again, whole)
    read_mask(square(214, 320, 100, 200), (8, 8), of=(427, 640))  # as half of 427 is rounded
    read_mask(square(213, 320, 100, 200), (8, 8), of=(427, 640))


@pytest.mark.parametrize("sides", [(512, 512), (640, 427), (427, 600), (8, 8)])
def test_a_mask_of_other_proportions_is_refused(sides: tuple[int, int]) -> None:
    height, width = sides
    with pytest.raises(InvalidInput, match=f"the mask has {width} x {height} pixels and the picture 640 x 427"):
        read_mask(Image.new("L", (width, height), 255), (16, 16), "stretch", of=(427, 640))


def test_a_crop_that_loses_the_mask_is_said() -> None:
    with pytest.raises(InvalidInput, match=r'the crop to 16 x 16 cuts off all .* fit="stretch", or a height and width'):
        read_mask(square(427, 640, 0, 90), (16, 16), of=(427, 640))
    assert read_mask(square(427, 640, 0, 90), (16, 16), "stretch", of=(427, 640))[0, 0, :, :2].min() == 1
    with pytest.warns(UserWarning, match="the crop to 16 x 16 cuts off 53% of what the mask marks"):
        mask = read_mask(square(427, 640, 0, 200), (16, 16), of=(427, 640))
    assert mask[0, 0].sum(dim=1).tolist() == [4.0] * 16  # 94 of 427 columns are left
    read_mask(square(427, 640, 107, 320), (16, 16), of=(427, 640))  # and says nothing where all is kept


def test_a_mask_that_vanishes_where_it_is_made_small_is_refused() -> None:
    with pytest.raises(InvalidInput, match="vanishes at 8 x 8 pixels"):
        read_mask(square(800, 800, 400, 402), (8, 8))
