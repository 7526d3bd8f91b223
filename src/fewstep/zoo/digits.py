"""The data of the shipped model: 1,797 handwritten digits of 8x8 pixels, part of scikit-learn (no download).

They are the test set of "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998, UCI Machine
Learning Repository, doi:10.24432/C50P49, CC BY 4.0): bitmaps of 32x32, counted in blocks of 4x4, so that a
pixel is 0 to 16.
"""

from __future__ import annotations

import hashlib

import torch

from fewstep.core.errors import InvalidInput
from fewstep.zoo.dataset import ImageSet


def load() -> ImageSet:
    """All digits, in scikit-learn's order: images (1797, 1, 8, 8) scaled from 0..16 to -1..1, labels 0 to 9.

    Raises:
        InvalidInput: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InvalidInput(
            "the digits come with scikit-learn, which is not installed; run: pip install 'fewstep[train]'"
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    return ImageSet("digits", images, torch.tensor(labels, dtype=torch.int64), classes=10)


HELD_OUT = 0.1
"""Share of the images, of every class, that a digits model never sees."""


def split(data: ImageSet, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """(training, held out): what a digits model of this seed is trained on, and what it never sees.

    With seed 0 these are the images of the shipped model.
    """
    key = hashlib.sha256(f"{seed} split 0".encode()).digest()[:8]
    return data.split(HELD_OUT, int.from_bytes(key, "big") >> 1)
