"""Pictures of any size and mode become tensors of one shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep import InvalidInput
from fewstep.data import framed, mirrored


def striped(mode: str = "RGB") -> Image.Image:
    """24 x 8 pixels: red, green and blue squares."""
    pixels = np.zeros((8, 24, 3), np.uint8)
    for place in range(3):
        pixels[:, 8 * place : 8 * place + 8, place] = 255
    return Image.fromarray(pixels).convert(mode)


def test_the_middle_is_cut_out_at_the_height_of_the_model() -> None:
    found = framed(striped(), (3, 4, 4))
    assert found.shape == (3, 4, 4)
    assert (found[1] - 1).abs().max() < 0.2  # green alone, but for the edges
    assert found[0, :, 1:3].max() < -0.9


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_any_mode_becomes_grey_or_rgb(mode: str) -> None:
    found = [framed(striped(mode), (channels, 8, 8)) for channels in (1, 3)]
    assert [tuple(one.shape) for one in found] == [(1, 8, 8), (3, 8, 8)]
    assert all(float(one.min()) >= -1 and float(one.max()) <= 1 for one in found)


def test_what_is_transparent_is_white_and_grey_is_the_same_in_three() -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert torch.equal(framed(clear, (3, 8, 8)), torch.ones(3, 8, 8))
    grey = framed(Image.new("L", (8, 8), 51), (3, 8, 8))
    assert float(grey[0, 0, 0]) == pytest.approx(51 / 127.5 - 1)
    assert torch.equal(grey[0], grey[2])


def test_numbers_are_taken_as_they_are_and_never_scaled() -> None:
    numbers = torch.linspace(-1, 1, 16).reshape(1, 4, 4)
    assert framed(numbers, (1, 4, 4)) is numbers
    with pytest.raises(InvalidInput, match=r"has shape \(1, 4, 4\), and the model takes \(1, 8, 8\)"):
        framed(numbers, (1, 8, 8))
    with pytest.raises(InvalidInput, match="the model takes 4 channels"):
        framed(striped(), (4, 8, 8))


def test_a_mirrored_picture_has_left_and_right_exchanged() -> None:
    found = mirrored(framed(striped(), (3, 8, 24)))
    assert float(found[2, 0, 0]) == pytest.approx(1)
    assert torch.equal(mirrored(found), framed(striped(), (3, 8, 24)))
